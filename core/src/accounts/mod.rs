//! Accounts: identity, authentication, roles, and the audit log of administrators.

pub mod attempts;
mod audit;
mod email;
mod password;
mod session;
mod user;

pub use audit::record;
pub use email::normalised as normalised_email;
pub use session::{end_session, end_sessions, session_user, start_session};
pub use user::{
    AccountError, NewUser, Registration, Role, User, by_email, by_id, investors, password_hash,
    register, set_password, verified,
};
