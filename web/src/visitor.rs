//! The signed-in user, as templates see it.

use sealyard_core::accounts::User;

#[derive(Clone, Debug)]
pub struct Visitor {
    pub name: String,
    pub is_admin: bool,
}

impl From<&User> for Visitor {
    fn from(user: &User) -> Self {
        Self {
            name: user.name.clone(),
            is_admin: user.is_admin(),
        }
    }
}
