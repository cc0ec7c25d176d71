//! How our types lie in columns. Both databases hold the same: identities as UUID or text, instants as milliseconds since 1970 (so that they
//! compare as numbers everywhere), and what is only ever read whole as JSON text.
//!
//! A value that no longer parses is an error of the read, never a default: the store must not invent identities.

use std::{error::Error, sync::Arc};

use contracts::{ConnectionId, EnrollmentId, EventId, JobId, TenantId, Timestamp};
use sea_orm::{
    ActiveValue, ColIdx, DbErr, IntoActiveValue, QueryResult, TryFromU64, TryGetError, TryGetable, Value,
    sea_query::{ArrayType, ColumnType, Nullable, ValueType, ValueTypeErr},
};
use serde::{Serialize, de::DeserializeOwned};
use time::OffsetDateTime;
use uuid::Uuid;

/// A typed UUID of the contracts.
pub trait TypedUuid: Copy + Send + Sync + 'static {
    fn wrap(id: Uuid) -> Self;
    fn bare(self) -> Uuid;
}

macro_rules! typed {
    ($($id:ty),*) => {$(
        impl TypedUuid for $id {
            fn wrap(id: Uuid) -> Self {
                Self::from_uuid(id)
            }
            fn bare(self) -> Uuid {
                self.as_uuid()
            }
        }
    )*};
}

typed!(TenantId, EnrollmentId, ConnectionId, JobId, EventId);

/// A typed identity as a UUID column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id<T>(pub T);

/// What serde writes as one string (ARNs, states, kinds), as a text column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Text<T>(pub T);

/// An instant, as milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct At(pub Timestamp);

/// What is only read whole, as JSON text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Json<T>(pub T);

fn unreadable<E: Error + Send + Sync + 'static>(into: &'static str, source: E) -> TryGetError {
    TryGetError::DbErr(DbErr::TryIntoErr { from: "column", into, source: Arc::new(source) })
}

/// The glue that sea-orm wants around a column type, from one reading and one writing function over a type that it knows.
macro_rules! column {
    ($name:ident<$t:ident: $bound:path>, over: $bare:ty, array: $array:ident, column: $column:expr, write: $write:expr, read: $read:expr) => {
        column!(@impl [<$t: $bound + Send + Sync + 'static>] $name<$t>, $bare, $array, $column, $write, $read);
    };
    ($name:ident, over: $bare:ty, array: $array:ident, column: $column:expr, write: $write:expr, read: $read:expr) => {
        column!(@impl [] $name, $bare, $array, $column, $write, $read);
    };
    (@impl [$($generics:tt)*] $name:ty, $bare:ty, $array:ident, $column:expr, $write:expr, $read:expr) => {
        impl $($generics)* From<$name> for Value {
            fn from(value: $name) -> Self {
                let write: fn($name) -> $bare = $write;
                write(value).into()
            }
        }

        impl $($generics)* TryGetable for $name {
            fn try_get_by<I: ColIdx>(row: &QueryResult, index: I) -> Result<Self, TryGetError> {
                let read: fn($bare) -> Result<Self, TryGetError> = $read;
                read(<$bare>::try_get_by(row, index)?)
            }
        }

        impl $($generics)* ValueType for $name {
            fn try_from(value: Value) -> Result<Self, ValueTypeErr> {
                let read: fn($bare) -> Result<Self, TryGetError> = $read;
                read(<$bare as ValueType>::try_from(value)?).map_err(|_| ValueTypeErr)
            }
            fn type_name() -> String {
                stringify!($name).to_owned()
            }
            fn array_type() -> ArrayType {
                ArrayType::$array
            }
            fn column_type() -> ColumnType {
                $column
            }
        }

        impl $($generics)* Nullable for $name {
            fn null() -> Value {
                <$bare as Nullable>::null()
            }
        }

        impl $($generics)* IntoActiveValue<$name> for $name {
            fn into_active_value(self) -> ActiveValue<$name> {
                ActiveValue::Set(self)
            }
        }
    };
}

trait Worded: Serialize + DeserializeOwned {}
impl<T: Serialize + DeserializeOwned> Worded for T {}

column!(Id<T: TypedUuid>, over: Uuid, array: Uuid, column: ColumnType::Uuid,
    write: |id| id.0.bare(), read: |id| Ok(Id(T::wrap(id))));

column!(At, over: i64, array: BigInt, column: ColumnType::BigInteger,
    write: |at| milliseconds(at.0), read: |ms| OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .map(|instant| At(instant.into())).map_err(|source| unreadable("an instant", source)));

// Writing cannot fail for what is kept so (words and plain records); were it to, the empty text would be refused by the reader.
column!(Text<T: Worded>, over: String, array: String, column: ColumnType::Text,
    write: |text| match serde_json::to_value(text.0) { Ok(serde_json::Value::String(word)) => word, _ => String::new() },
    read: |word| serde_json::from_value(serde_json::Value::String(word)).map(Text).map_err(|source| unreadable(std::any::type_name::<T>(), source)));

column!(Json<T: Worded>, over: String, array: String, column: ColumnType::Text,
    write: |json| serde_json::to_string(&json.0).unwrap_or_default(),
    read: |text| serde_json::from_str(&text).map(Json).map_err(|source| unreadable(std::any::type_name::<T>(), source)));

impl<T: TypedUuid> TryFromU64 for Id<T> {
    fn try_from_u64(_: u64) -> Result<Self, DbErr> {
        Err(DbErr::ConvertFromU64("a typed UUID"))
    }
}

impl At {
    #[must_use]
    pub fn now() -> Self {
        Self(Timestamp::now())
    }

    /// The inverse of [`milliseconds`]; what is beyond the calendar is its end.
    #[must_use]
    pub fn from_milliseconds(ms: i64) -> Self {
        let instant = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
        Self(instant.unwrap_or(time::PrimitiveDateTime::MAX.assume_utc()).into())
    }
}

/// Milliseconds since 1970; instants that do not fit (290 million years) are the last one that does.
#[must_use]
pub fn milliseconds(instant: Timestamp) -> i64 {
    <i64 as TryFrom<i128>>::try_from(instant.inner().unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}
