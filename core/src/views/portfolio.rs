//! An investor's holdings: balances, contracts, orders that are not contracts yet.

use crate::{
    accounts::User,
    catalog::{self, Plan},
    contracts::{self, Contract},
    ids::UserId,
    ledger::{self, AccountSpec},
    orders::{self, Order, OrderState, Payment},
    sealing::{self, SectorState},
    store::{AnyConnection, DbResult},
};

/// nanoFIL of an investor, without amounts on hold.
#[derive(Clone, Copy, Debug)]
pub struct Balances {
    pub available: i64,
    pub vesting: i64,
    pub pledged: i64,
}

impl Balances {
    pub(super) fn of(conn: &mut AnyConnection, user: UserId) -> DbResult<Self> {
        let mut free = |spec: AccountSpec| ledger::balance(conn, &spec).map(|b| b.free());
        Ok(Self {
            available: free(AccountSpec::Available(user))?,
            vesting: free(AccountSpec::Vesting(user))?,
            pledged: free(AccountSpec::Pledged(user))?,
        })
    }
}

pub struct Holding {
    pub contract: Contract,
    pub sectors: usize,
    /// Sectors that earn now.
    pub active: usize,
    /// nanoFIL credited so far, compensation included.
    pub earned_nano: i64,
}

pub struct Portfolio {
    pub balances: Balances,
    pub holdings: Vec<Holding>,
    /// Orders that did not become a contract, or not yet.
    pub orders: Vec<Order>,
}

fn holding(conn: &mut AnyConnection, contract: Contract) -> DbResult<Holding> {
    let sectors = sealing::of_contract(conn, contract.id)?;
    let active = sectors
        .iter()
        .filter(|s| s.state == SectorState::Active)
        .count();
    let lots = ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX)?;
    let credited = |lot: &ledger::Lot| lot.available_nano + lot.locked_nano + lot.compensation_nano;
    let earned_nano = lots.iter().map(credited).sum();
    Ok(Holding {
        contract,
        sectors: sectors.len(),
        active,
        earned_nano,
    })
}

pub fn portfolio(conn: &mut AnyConnection, user: UserId) -> DbResult<Portfolio> {
    let contracts = contracts::of_user(conn, user)?.into_iter();
    let holdings: DbResult<Vec<_>> = contracts.map(|contract| holding(conn, contract)).collect();
    let mut orders = orders::of_user(conn, user)?;
    orders.retain(|order| order.state != OrderState::Fulfilled);
    Ok(Portfolio {
        balances: Balances::of(conn, user)?,
        holdings: holdings?,
        orders,
    })
}

/// An order with what became of it.
pub struct OrderView {
    pub order: Order,
    pub plan: Plan,
    pub payment: Option<Payment>,
    pub contract: Option<Contract>,
}

/// `None`: there is no such order that this person may see.
pub fn order(conn: &mut AnyConnection, id: &str, viewer: &User) -> DbResult<Option<OrderView>> {
    let may_see = |order: &Order| order.user_id == viewer.id || viewer.is_admin();
    let Some(order) = orders::by_public_id(conn, id)?.filter(may_see) else {
        return Ok(None);
    };
    Ok(Some(OrderView {
        plan: catalog::plan_for(conn, order.plan_id)?,
        payment: orders::latest_payment(conn, order.id)?,
        contract: contracts::of_order(conn, order.id)?,
        order,
    }))
}
