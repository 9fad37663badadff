//! Plans: units of one pool's power for a number of days, at a price.

use diesel::prelude::*;

use super::Terms;
use crate::{
    clock::Micros,
    ids::{PlanId, PoolId, public_id},
    money::{BasisPoints, Fiat},
    store::{AnyConnection, DbResult, schema::plans},
    units::Bytes,
};

#[derive(Clone, Debug, Queryable)]
pub struct Plan {
    pub id: PlanId,
    pub public_id: String,
    pub pool_id: PoolId,
    pub name: String,
    /// A multiple of the pool's sector size.
    pub unit_bytes: i64,
    pub max_units: i64,
    pub days: i64,
    /// Price of one unit for the whole term, in minor units of `currency`.
    pub price_minor: i64,
    pub currency: String,
    pub on_sale: bool,
    pub created_at: Micros,
    /// Terms of the contracts that are sold under this plan.
    pub terms: Terms,
}

impl Plan {
    /// Bytes and price of `units`; `None` outside the plan's bounds.
    #[must_use]
    pub fn priced(&self, units: i64) -> Option<(Bytes, Fiat)> {
        if !(1..=self.max_units).contains(&units) {
            return None;
        }
        let bytes = self.unit_bytes.checked_mul(units)?;
        Some((
            Bytes(bytes),
            Fiat {
                minor: self.price_minor.checked_mul(units)?,
                currency: self.currency.clone(),
            },
        ))
    }

    #[must_use]
    pub fn fee(&self) -> BasisPoints {
        BasisPoints(self.terms.service_fee_bp)
    }
}

#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = plans)]
pub struct NewPlan {
    pub public_id: String,
    pub pool_id: PoolId,
    pub name: String,
    pub unit_bytes: i64,
    pub max_units: i64,
    pub days: i64,
    pub price_minor: i64,
    pub currency: String,
    pub on_sale: bool,
    pub created_at: Micros,
    pub terms: Terms,
}

impl NewPlan {
    /// A plan of one sector per unit, on sale.
    #[must_use]
    pub fn of_sectors(
        pool: &crate::capacity::Pool,
        name: &str,
        days: i64,
        price: Fiat,
        terms: Terms,
        now: Micros,
    ) -> Self {
        Self {
            public_id: public_id("pln"),
            pool_id: pool.id,
            name: name.to_owned(),
            unit_bytes: pool.sector_bytes,
            max_units: 1000,
            days,
            price_minor: price.minor,
            currency: price.currency,
            on_sale: true,
            created_at: now,
            terms,
        }
    }
}

pub fn create_plan(conn: &mut AnyConnection, new: &NewPlan) -> DbResult<Plan> {
    diesel::insert_into(plans::table)
        .values(new.clone())
        .returning(plans::all_columns)
        .get_result(conn)
}

pub fn plans_on_sale(conn: &mut AnyConnection) -> DbResult<Vec<Plan>> {
    plans::table
        .filter(plans::on_sale.eq(true))
        .order(plans::id.asc())
        .load(conn)
}

pub fn plan_by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Plan>> {
    plans::table
        .filter(plans::public_id.eq(id))
        .first(conn)
        .optional()
}

pub fn plan_for(conn: &mut AnyConnection, id: PlanId) -> DbResult<Plan> {
    plans::table.find(id).first(conn)
}
