//! A row of either database, and one column of it as plain data.

use sqlx::postgres::PgRow;
use sqlx::sqlite::SqliteRow;
use sqlx::{ColumnIndex, Row as _};
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

    pub(in crate::store) fn get_id(&self, column: impl Column) -> Result<Option<Uuid>, StoreError> {
        match self {
            Self::Sqlite(row) => {
                let text: Option<&str> = row.try_get(column)?;
                text.map(|text| Uuid::parse_str(text).map_err(|_| corrupt(column, text))).transpose()
            }
            Self::Postgres(row) => Ok(row.try_get(column)?),
        }
    }

    pub(in crate::store) fn get_time(&self, column: impl Column) -> Result<Option<Timestamp>, StoreError> {
        match self {
            Self::Sqlite(row) => {
                let text: Option<&str> = row.try_get(column)?;
                text.map(|text| Timestamp::parse(text).map_err(|_| corrupt(column, text))).transpose()
            }
            Self::Postgres(row) => Ok(row.try_get::<Option<PgTime>, _>(column)?.map(|PgTime(time)| time)),
        }
    }
}

/// A value that does not read: changed by hand, or written by another version.
pub(in crate::store) fn corrupt(column: impl std::fmt::Display, value: &str) -> StoreError {
    StoreError::Corrupt(format!("{column} = {value:?}"))
}
