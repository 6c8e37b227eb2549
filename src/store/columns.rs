//! How one column is read: text back into ids, times and words. What does not read is reported as corrupt, never guessed.

use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::StoreError;
use crate::a2a::OperationSet;
use crate::clock::Timestamp;

fn corrupt(column: &str, value: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} = {value:?}"))
}

pub(super) fn text(row: &SqliteRow, column: &str) -> Result<String, StoreError> {
    Ok(row.try_get(column)?)
}

pub(super) fn optional_text(row: &SqliteRow, column: &str) -> Result<Option<String>, StoreError> {
    Ok(row.try_get(column)?)
}

pub(super) fn flag(row: &SqliteRow, column: &str) -> Result<bool, StoreError> {
    Ok(row.try_get::<i64, _>(column)? != 0)
}

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<Uuid, StoreError> {
    let text = text(row, column)?;
    Uuid::parse_str(&text).map_err(|_| corrupt(column, &text))
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, StoreError> {
    let text = text(row, column)?;
    Timestamp::parse(&text).map_err(|_| corrupt(column, &text))
}

pub(super) fn optional_time(row: &SqliteRow, column: &str) -> Result<Option<Timestamp>, StoreError> {
    optional_text(row, column)?.map(|text| Timestamp::parse(&text).map_err(|_| corrupt(column, &text))).transpose()
}

pub(super) fn optional_u32(row: &SqliteRow, column: &str) -> Result<Option<u32>, StoreError> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|n| u32::try_from(n).map_err(|_| corrupt(column, &n.to_string()))).transpose()
}

pub(super) fn optional_u64(row: &SqliteRow, column: &str) -> Result<Option<u64>, StoreError> {
    let value: Option<i64> = row.try_get(column)?;
    value.map(|n| u64::try_from(n).map_err(|_| corrupt(column, &n.to_string()))).transpose()
}

pub(super) fn digest(row: &SqliteRow, column: &str) -> Result<[u8; 32], StoreError> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| corrupt(column, "a digest of another length"))
}

pub(super) fn word<T>(row: &SqliteRow, column: &str, read: fn(&str) -> Option<T>) -> Result<T, StoreError> {
    let text = text(row, column)?;
    read(&text).ok_or_else(|| corrupt(column, &text))
}

pub(super) fn list(row: &SqliteRow, column: &str) -> Result<Vec<String>, StoreError> {
    let text = text(row, column)?;
    serde_json::from_str(&text).map_err(|_| corrupt(column, &text))
}

/// A set of operations as a JSON list of names, where there is one.
pub(super) fn operations(row: &SqliteRow, column: &str) -> Result<Option<OperationSet>, StoreError> {
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

/// A time as text, where there is one.
pub(super) fn time_text(time: Option<Timestamp>) -> Option<String> {
    time.map(|t| t.to_string())
}
