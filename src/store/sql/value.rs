//! Values as statements take them, and what they are in each database.
//!
//! | | SQLite | PostgreSQL |
//! |---|---|---|
//! | id | hyphenated text | `uuid` |
//! | time | RFC 3339 text of fixed width | `timestamptz` |
//! | flag | 0, 1 | `boolean` |
//! | bytes | `BLOB` | `bytea` |
//! | ids, a list | JSON text, for `json_each` | `uuid[]`, for `ANY` |
//!
//! PostgreSQL's text cannot hold U+0000. What a caller sends may; there it becomes U+001A, whose meaning is just that.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::query::Query;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Decode, Encode, Postgres, Sqlite, Type};
use uuid::Uuid;

use crate::clock::Timestamp;

/// One value of a statement.
#[derive(Clone, Debug)]
pub(in crate::store) enum Value {
    Id(Option<Uuid>),
    Time(Option<Timestamp>),
    Text(Option<String>),
    Number(Option<i64>),
    Flag(bool),
    Bytes(Option<Vec<u8>>),
    Ids(Vec<Uuid>),
}

impl Value {
    pub(super) fn on_sqlite<'q>(self, query: Query<'q, Sqlite, SqliteArguments>) -> Query<'q, Sqlite, SqliteArguments> {
        match self {
            Self::Id(id) => query.bind(id.map(|id| id.to_string())),
            Self::Time(time) => query.bind(time.map(|time| time.to_string())),
            Self::Text(text) => query.bind(text),
            Self::Number(number) => query.bind(number),
            Self::Flag(flag) => query.bind(i64::from(flag)),
            Self::Bytes(bytes) => query.bind(bytes),
            Self::Ids(ids) => {
                query.bind(serde_json::Value::from(ids.iter().map(Uuid::to_string).collect::<Vec<_>>()).to_string())
            }
        }
    }

    pub(super) fn on_postgres<'q>(self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        match self {
            Self::Id(id) => query.bind(id),
            Self::Time(time) => query.bind(time.map(PgTime)),
            Self::Text(text) => query.bind(text.map(storable)),
            Self::Number(number) => query.bind(number),
            Self::Flag(flag) => query.bind(flag),
            Self::Bytes(bytes) => query.bind(bytes),
            Self::Ids(ids) => query.bind(ids),
        }
    }
}

fn storable(text: String) -> String {
    if text.contains('\0') { text.replace('\0', "\u{1A}") } else { text }
}

macro_rules! value_from {
    ($($type:ty => |$value:ident| $made:expr;)+) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        }
    )+};
}

value_from! {
    Uuid => |id| Self::Id(Some(id));
    Option<Uuid> => |id| Self::Id(id);
    Timestamp => |time| Self::Time(Some(time));
    Option<Timestamp> => |time| Self::Time(time);
    String => |text| Self::Text(Some(text));
    &str => |text| Self::Text(Some(text.to_owned()));
    &String => |text| Self::Text(Some(text.clone()));
    Option<String> => |text| Self::Text(text);
    Option<&str> => |text| Self::Text(text.map(str::to_owned));
    &Option<String> => |text| Self::Text(text.clone());
    i64 => |number| Self::Number(Some(number));
    Option<i64> => |number| Self::Number(number);
    u32 => |number| Self::Number(Some(number.into()));
    Option<u32> => |number| Self::Number(number.map(i64::from));
    bool => |flag| Self::Flag(flag);
    Vec<u8> => |bytes| Self::Bytes(Some(bytes));
    &[u8] => |bytes| Self::Bytes(Some(bytes.to_vec()));
    &[u8; 32] => |bytes| Self::Bytes(Some(bytes.to_vec()));
    Option<Vec<u8>> => |bytes| Self::Bytes(bytes);
    &Vec<u8> => |bytes| Self::Bytes(Some(bytes.clone()));
    &Option<Vec<u8>> => |bytes| Self::Bytes(bytes.clone());
    Vec<Uuid> => |ids| Self::Ids(ids);
    &[Uuid] => |ids| Self::Ids(ids.to_vec());
}

/// A time as PostgreSQL has it: microseconds since the year 2000.
#[derive(Clone, Copy, Debug)]
pub(in crate::store) struct PgTime(pub(in crate::store) Timestamp);

const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);
/// 2000-01-01T00:00:00Z in microseconds since 1970.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for PgTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<'_, Postgres>>::encode(self.0.0.saturating_sub(POSTGRES_EPOCH), buffer)
    }
}

impl Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<'_, Postgres>>::decode(value)?;
        Ok(Self(Timestamp(micros.saturating_add(POSTGRES_EPOCH))))
    }
}
