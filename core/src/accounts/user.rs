//! Users: registration and signing in.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use super::{email::normalised, end_sessions, password, record};
use crate::{
    clock::Micros,
    ids::{UserId, public_id},
    store::{AnyConnection, DbFault, DbResult, dialect, schema::users},
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum Role {
    Investor,
    Admin,
}

stored_as_text!(Role {
    Investor => "investor",
    Admin => "admin",
});

#[derive(Clone, Debug, Queryable)]
pub struct User {
    pub id: UserId,
    pub public_id: String,
    pub email: String,
    pub name: String,
    pub password_hash: String,
    pub role: Role,
    pub created_at: Micros,
}

impl User {
    #[must_use]
    pub fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("{0:?} is not a valid e-mail address; check its spelling")]
    Email(String),
    #[error("enter a name of at most 120 characters")]
    Name,
    #[error("a password needs at least {} characters", password::SHORTEST)]
    Password,
    #[error("there is an account with this e-mail address; sign in instead")]
    Taken,
    #[error("e-mail address or password is wrong")]
    Refused,
    #[error("there is no account with this e-mail address")]
    Unknown,
    #[error("the system has no randomness available; try again")]
    Randomness,
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(AccountError);

#[derive(Clone, Debug)]
pub struct NewUser<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub password: &'a str,
    pub role: Role,
}

#[derive(Insertable)]
#[diesel(table_name = users)]
struct Row<'a> {
    public_id: String,
    email: &'a str,
    name: &'a str,
    password_hash: &'a str,
    role: Role,
    created_at: Micros,
}

/// A checked registration. The slow password hash is computed before anything is locked.
#[derive(Clone, Debug)]
pub struct Registration {
    email: String,
    name: String,
    password_hash: String,
    role: Role,
}

impl Registration {
    pub fn of(new: &NewUser<'_>) -> Result<Self, AccountError> {
        let email = normalised(new.email)?;
        let name = new.name.trim();
        if name.is_empty() || name.chars().count() > 120 || name.contains(char::is_control) {
            return Err(AccountError::Name);
        }
        let password_hash = password_hash(new.password)?;
        Ok(Self {
            email,
            name: name.to_owned(),
            password_hash,
            role: new.role,
        })
    }
}

/// Hashes a password. Refuses one that is too short.
pub fn password_hash(text: &str) -> Result<String, AccountError> {
    if text.chars().count() < password::SHORTEST {
        return Err(AccountError::Password);
    }
    password::hash(text).ok_or(AccountError::Randomness)
}

/// Sets a new password and ends every session, so that anyone who knew the old one is signed out.
pub fn set_password(
    conn: &mut AnyConnection,
    email: &str,
    hash: &str,
    now: Micros,
) -> Result<(), AccountError> {
    let user = by_email(conn, email)?.ok_or(AccountError::Unknown)?;
    diesel::update(users::table.find(user.id))
        .set(users::password_hash.eq(hash))
        .execute(conn)?;
    end_sessions(conn, user.id, now)?;
    record(conn, now, None, "new password", &user.public_id, "")?;
    Ok(())
}

pub fn register(
    conn: &mut AnyConnection,
    new: &Registration,
    now: Micros,
) -> Result<User, AccountError> {
    let row = Row {
        public_id: public_id("usr"),
        email: &new.email,
        name: &new.name,
        password_hash: &new.password_hash,
        role: new.role,
        created_at: now,
    };
    diesel::insert_into(users::table)
        .values(row)
        .returning(users::all_columns)
        .get_result(conn)
        .map_err(|error| {
            if dialect::is_unique_violation(&error) {
                AccountError::Taken
            } else {
                error.into()
            }
        })
}

/// Returns the user if `password` is right. An unknown address (`user` is `None`) and a wrong
/// password give the same error, after about the same time.
pub fn verified(user: Option<User>, password: &str) -> Result<User, AccountError> {
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1\
        $c2VhbHlhcmRzZWFseWFyZA$MZ3qf0CzrTsF9uXm0rUbl7tUk7Qo1QhbnX5QGsbL6ZA";
    let hash = user
        .as_ref()
        .map_or(NOBODY, |user| user.password_hash.as_str());
    let verified = password::verify(password, hash);
    user.filter(|_| verified).ok_or(AccountError::Refused)
}

pub fn by_email(conn: &mut AnyConnection, email: &str) -> DbResult<Option<User>> {
    // Text that is not an address belongs to nobody.
    let Ok(email) = normalised(email) else {
        return Ok(None);
    };
    users::table
        .filter(users::email.eq(email))
        .first(conn)
        .optional()
}

pub fn by_id(conn: &mut AnyConnection, id: UserId) -> DbResult<User> {
    users::table.find(id).first(conn)
}

pub fn investors(conn: &mut AnyConnection) -> DbResult<Vec<User>> {
    users::table
        .filter(users::role.eq(Role::Investor))
        .order(users::id.asc())
        .load(conn)
}
