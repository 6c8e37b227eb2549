//! A row of either database, and one column of it as plain data.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Row as _, ValueRef as _};
use uuid::Uuid;

use super::PgTime;
use crate::clock::Timestamp;
use crate::store::StoreError;

/// A row that was read.
pub(in crate::store) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// A column by its name or its place.
pub(in crate::store) trait Column:
    ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + std::fmt::Display + Copy
{
}

impl<C: ColumnIndex<SqliteRow> + ColumnIndex<PgRow> + std::fmt::Display + Copy> Column for C {}

impl Row {
    pub(in crate::store) fn get_text(&self, column: impl Column) -> Result<Option<String>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(in crate::store) fn get_number(&self, column: impl Column) -> Result<Option<i64>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(in crate::store) fn get_bytes(&self, column: impl Column) -> Result<Option<&[u8]>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    pub(in crate::store) fn get_flag(&self, column: impl Column) -> Result<Option<bool>, StoreError> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get::<Option<i64>, _>(column)?.map(|flag| flag != 0),
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Whether there is such a column, and something in it.
    pub(in crate::store) fn is_set(&self, column: &str) -> bool {
        match self {
            Self::Sqlite(row) => row.try_get_raw(column).is_ok_and(|value| !value.is_null()),
            Self::Postgres(row) => row.try_get_raw(column).is_ok_and(|value| !value.is_null()),
        }
    }

    pub(in crate::store) fn get_id(&self, column: impl Column) -> Result<Option<Uuid>, StoreError> {
        match self {
            Self::Sqlite(row) => {
                let text: Option<&str> = row.try_get(column)?;
                text.map(|text| exact_id(text).ok_or_else(|| corrupt(column, text))).transpose()
            }
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(in crate::store) fn get_time(&self, column: impl Column) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::Sqlite(row) => {
                let text: Option<&str> = row.try_get(column)?;
                text.map(|text| Timestamp::parse_exact(text).ok_or_else(|| corrupt(column, text))).transpose()
            }
            Self::Postgres(row) => Ok(row.try_get::<Option<PgTime>, _>(column)?.map(|PgTime(time)| time)),
        }
    }
}

/// An id as it is written here: one that is written otherwise was changed by hand, though it is the same id.
pub(in crate::store) fn exact_id(text: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(text).ok()?;
    (id.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text).then_some(id)
}

/// A value that does not read: changed by hand, or written by another version.
pub(in crate::store) fn corrupt(column: impl std::fmt::Display, value: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} = {value:?}"))
}
