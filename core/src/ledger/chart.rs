//! The chart of accounts. Every account is named here and nowhere else.

use crate::ids::{PoolId, UserId};

/// The asset of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asset {
    /// nanoFIL.
    Fil,
    /// Minor units of an ISO currency.
    Fiat(String),
    /// Bytes of raw power of one pool.
    Capacity(PoolId),
}

impl Asset {
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::Fil => "FIL".into(),
            Self::Fiat(currency) => currency.clone(),
            Self::Capacity(pool) => format!("capacity:{pool}"),
        }
    }
}

/// An account by its meaning. Sources outside the books (the chain, a payment rail, the operator's
/// disks and pocket) may go negative: their deficit is the amount that came in through them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSpec {
    /// Block rewards of a pool's miner, as the chain awards them.
    ChainRewards(PoolId),
    /// The operator's service fees.
    Fees(PoolId),
    /// Earnings of the operator's own and unsold power, and payments by investors other than the
    /// service fee: costs, kept pledges and corrections.
    OperatorYield(PoolId),
    /// Compensation that the operator pays for promised power that was missing, and corrections in
    /// an investor's favour.
    Compensation(PoolId),
    /// An investor's FIL that can be withdrawn.
    Available(UserId),
    /// An investor's FIL that the chain still locks.
    Vesting(UserId),
    /// An investor's FIL that secures sectors.
    Pledged(UserId),
    /// Money that a payment rail has collected for us.
    Rail {
        rail: String,
        currency: String,
    },
    /// Sales.
    Sales {
        currency: String,
    },
    /// Money that was received and fits no order; a person decides whose it is.
    Suspense {
        currency: String,
    },
    /// The capacity of the operator's machines.
    Owned(PoolId),
    Free(PoolId),
    Sold(PoolId),
    OwnUse(PoolId),
    Down(PoolId),
}

impl AccountSpec {
    #[must_use]
    pub fn code(&self) -> String {
        match self {
            Self::ChainRewards(pool) => format!("pool:{pool}:chain-rewards"),
            Self::Fees(pool) => format!("pool:{pool}:fees"),
            Self::OperatorYield(pool) => format!("pool:{pool}:operator"),
            Self::Compensation(pool) => format!("pool:{pool}:compensation"),
            Self::Available(user) => format!("user:{user}:available"),
            Self::Vesting(user) => format!("user:{user}:vesting"),
            Self::Pledged(user) => format!("user:{user}:pledged"),
            Self::Rail { rail, currency } => format!("rail:{rail}:{currency}"),
            Self::Sales { currency } => format!("sales:{currency}"),
            Self::Suspense { currency } => format!("suspense:{currency}"),
            Self::Owned(pool) => format!("capacity:{pool}:owned"),
            Self::Free(pool) => format!("capacity:{pool}:free"),
            Self::Sold(pool) => format!("capacity:{pool}:sold"),
            Self::OwnUse(pool) => format!("capacity:{pool}:own-use"),
            Self::Down(pool) => format!("capacity:{pool}:down"),
        }
    }

    #[must_use]
    pub fn asset(&self) -> Asset {
        match self {
            Self::ChainRewards(_)
            | Self::Fees(_)
            | Self::OperatorYield(_)
            | Self::Compensation(_)
            | Self::Available(_)
            | Self::Vesting(_)
            | Self::Pledged(_) => Asset::Fil,
            Self::Rail { currency, .. }
            | Self::Sales { currency }
            | Self::Suspense { currency } => Asset::Fiat(currency.clone()),
            Self::Owned(pool)
            | Self::Free(pool)
            | Self::Sold(pool)
            | Self::OwnUse(pool)
            | Self::Down(pool) => Asset::Capacity(*pool),
        }
    }

    #[must_use]
    pub fn never_negative(&self) -> bool {
        !matches!(
            self,
            Self::ChainRewards(_) | Self::Compensation(_) | Self::Rail { .. } | Self::Owned(_)
        )
    }

    #[must_use]
    pub fn user(&self) -> Option<UserId> {
        match self {
            Self::Available(user) | Self::Vesting(user) | Self::Pledged(user) => Some(*user),
            _ => None,
        }
    }

    #[must_use]
    pub fn pool(&self) -> Option<PoolId> {
        match self {
            Self::ChainRewards(pool)
            | Self::Fees(pool)
            | Self::OperatorYield(pool)
            | Self::Compensation(pool)
            | Self::Owned(pool)
            | Self::Free(pool)
            | Self::Sold(pool)
            | Self::OwnUse(pool)
            | Self::Down(pool) => Some(*pool),
            _ => None,
        }
    }
}
