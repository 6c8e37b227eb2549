//! How one column is read: into ids, times and words. What does not read is reported as corrupt, never guessed.

use uuid::Uuid;

use super::StoreError;
use super::sql::{Column, Row, corrupt};
use crate::a2a::OperationSet;
use crate::clock::Timestamp;

fn there<T>(column: impl Column, value: Option<T>) -> Result<T, StoreError> {
    value.ok_or_else(|| StoreError::Corrupt(format!("{column} is null")))
}

pub(super) fn text(row: &Row, column: &str) -> Result<String, StoreError> {
    there(column, row.get_text(column)?)
}

pub(super) fn optional_text(row: &Row, column: &str) -> Result<Option<String>, StoreError> {
    row.get_text(column)
}

pub(super) fn flag(row: &Row, column: &str) -> Result<bool, StoreError> {
    there(column, row.get_flag(column)?)
}

pub(super) fn number(row: &Row, column: &str) -> Result<i64, StoreError> {
    there(column, row.get_number(column)?)
}

pub(super) fn unsigned(row: &Row, column: &str) -> Result<u64, StoreError> {
    let number = number(row, column)?;
    u64::try_from(number).map_err(|_| corrupt(column, &number.to_string()))
}

pub(super) fn id(row: &Row, column: &str) -> Result<Uuid, StoreError> {
    there(column, row.get_id(column)?)
}

pub(super) fn time(row: &Row, column: &str) -> Result<Timestamp, StoreError> {
    there(column, row.get_time(column)?)
}

pub(super) fn optional_time(row: &Row, column: &str) -> Result<Option<Timestamp>, StoreError> {
    row.get_time(column)
}

pub(super) fn optional_u32(row: &Row, column: &str) -> Result<Option<u32>, StoreError> {
    row.get_number(column)?.map(|n| u32::try_from(n).map_err(|_| corrupt(column, &n.to_string()))).transpose()
}

pub(super) fn optional_u64(row: &Row, column: &str) -> Result<Option<u64>, StoreError> {
    row.get_number(column)?.map(|n| u64::try_from(n).map_err(|_| corrupt(column, &n.to_string()))).transpose()
}

pub(super) fn bytes(row: &Row, column: &str) -> Result<Vec<u8>, StoreError> {
    Ok(there(column, row.get_bytes(column)?)?.to_vec())
}

pub(super) fn optional_bytes(row: &Row, column: &str) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(row.get_bytes(column)?.map(<[u8]>::to_vec))
}

/// Bytes of a length that is known.
pub(super) fn array<const N: usize>(row: &Row, column: &str) -> Result<[u8; N], StoreError> {
    there(column, optional_array(row, column)?)
}

/// Such bytes, where there are any.
pub(super) fn optional_array<const N: usize>(row: &Row, column: &str) -> Result<Option<[u8; N]>, StoreError> {
    let parse =
        |bytes: &[u8]| bytes.try_into().map_err(|_| StoreError::Corrupt(format!("{column} is not {N} bytes long")));
    row.get_bytes(column)?.map(parse).transpose()
}

pub(super) fn word<T>(row: &Row, column: &str, read: fn(&str) -> Option<T>) -> Result<T, StoreError> {
    let text = text(row, column)?;
    read(&text).ok_or_else(|| corrupt(column, &text))
}

pub(super) fn list(row: &Row, column: &str) -> Result<Vec<String>, StoreError> {
    let text = text(row, column)?;
    serde_json::from_str(&text).map_err(|_| corrupt(column, &text))
}

/// A set of operations as a JSON list of names, where there is one.
pub(super) fn operations(row: &Row, column: &str) -> Result<Option<OperationSet>, StoreError> {
    let Some(text) = optional_text(row, column)? else { return Ok(None) };
    let names: Vec<String> = serde_json::from_str(&text).map_err(|_| corrupt(column, &text))?;
    OperationSet::from_names(&names).map(Some).map_err(|_| corrupt(column, &text))
}

/// Such a set as text, where there is one.
pub(super) fn operations_text(set: Option<OperationSet>) -> Option<String> {
    set.map(|set| serde_json::Value::from(set.names().collect::<Vec<_>>()).to_string())
}

/// A list as JSON text.
pub(super) fn list_text(list: &[String]) -> String {
    serde_json::Value::from(list.to_vec()).to_string()
}
