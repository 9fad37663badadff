//! Row ids, and the public ids that leave the system. A public id names the kind of thing, and
//! cannot be guessed or counted.

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql},
    serialize::{self, Output, ToSql},
    sql_types::BigInt,
};
use rand::RngExt as _;

/// Without letters that look like digits.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz023456789";
const LENGTH: usize = 16;

/// `ctr_…` with 80 random bits.
#[must_use]
pub fn public_id(prefix: &str) -> String {
    format!("{prefix}_{}", random_text(LENGTH))
}

/// A secret that is shown only once: 160 random bits.
#[must_use]
pub fn secret() -> String {
    random_text(2 * LENGTH)
}

fn random_text(length: usize) -> String {
    let mut rng = rand::rng();
    (0..length)
        .map(|_| {
            let at = usize::from(rng.random::<u8>()) % ALPHABET.len();
            ALPHABET.get(at).map_or('a', |&letter| char::from(letter))
        })
        .collect()
}

/// SHA-256, hex. Secrets that are shown once are stored only as digests.
#[must_use]
pub fn digest(secret: &str) -> String {
    use sha2::Digest;
    hex::encode(sha2::Sha256::digest(secret.as_bytes()))
}

/// A digest, hex, that can only be made with the key (HMAC-SHA-256).
#[must_use]
pub fn keyed_digest(key: &str, text: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(text.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize,
            diesel::expression::AsExpression, diesel::deserialize::FromSqlRow,
        )]
        #[diesel(sql_type = BigInt)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl<DB: Backend> ToSql<BigInt, DB> for $name
        where
            i64: ToSql<BigInt, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                self.0.to_sql(out)
            }
        }

        impl<DB: Backend> FromSql<BigInt, DB> for $name
        where
            i64: FromSql<BigInt, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
                i64::from_sql(bytes).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(UserId);
id!(PoolId);
id!(PlanId);
id!(OrderId);
id!(ContractId);
id!(MachineId);
id!(SectorId);
id!(TaskId);
id!(PostId);
id!(MessageId);
id!(AccountId);
id!(JobId);
