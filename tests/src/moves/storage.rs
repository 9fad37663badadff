//! Sealed sectors move to the machine that stores them.

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    clock::{DAY, HOUR, MINUTE, Micros, SECOND},
    fleet::{Machine, protocol::StoredSector},
    sealing::{self, SectorState, TaskHead},
    store::{DbFault, schema},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{Fixture, beat, done, failed, fixture};
use crate::support::{EPOCH_SECONDS, NOW, counts, machine, on_both, read_up_to};

/// Marks the sector as sealed, with its files on the second machine, and adds a third machine that
/// stores sealed sectors.
fn sealed(fixture: &Fixture<'_>) -> Machine {
    let keeper = machine(fixture.db, "keeper");
    fixture
        .db
        .transact(|conn| {
            use schema::sectors as s;
            beat(conn, &keeper, 0, NOW)?;
            let values = (
                s::state.eq("active"),
                s::machine_id.eq(fixture.second.id),
                s::activation.eq(10),
                s::comm_r.eq("33"),
            );
            diesel::update(s::table.find(fixture.sector.id))
                .set((values, s::expiration.eq(900_000)))
                .execute(conn)?;
            Ok::<_, DbFault>(())
        })
        .unwrap();
    counts(fixture.db, fixture.sector.pool_id, fixture.sector.number);
    keeper
}

/// The time at which the old copy can go, two days after the transfer.
const LATER: Micros = NOW + 2 * DAY;

/// A sector whose files are on its old machine, the second, and on the keeper.
struct Copies<'f> {
    fixture: &'f Fixture<'f>,
    keeper: &'f Machine,
}

impl Copies<'_> {
    /// How many copies this machine can delete.
    fn spare(&self, on: &Machine) -> usize {
        self.fixture.not_needed(on, LATER).len()
    }

    fn assert_old_is_kept(&self, why: &str) {
        assert_eq!(self.spare(&self.fixture.second), 0, "{why}");
    }

    fn chain_is_read_until(&self, at: Micros) {
        let epoch = (at - (NOW - DAY)) / SECOND / EPOCH_SECONDS;
        read_up_to(self.fixture.db, self.fixture.sector.pool_id, epoch);
    }

    fn sector_becomes(&self, state: &str) {
        use schema::sectors as s;
        let row = s::table.find(self.fixture.sector.id);
        self.fixture
            .db
            .transact(|conn| {
                Ok::<_, DbFault>(diesel::update(row).set(s::state.eq(state)).execute(conn)?)
            })
            .unwrap();
    }

    fn keeper_is_lost(&self, since: Option<Micros>) {
        use schema::machines as m;
        let row = m::table.find(self.keeper.id);
        self.fixture
            .db
            .transact(|conn| {
                Ok::<_, DbFault>(
                    diesel::update(row)
                        .set(m::lost_since.eq(since))
                        .execute(conn)?,
                )
            })
            .unwrap();
    }

    /// This machine reports that it holds this sector.
    fn seen(&self, on: &Machine, sector: StoredSector, now: Micros) {
        self.fixture
            .db
            .transact(|conn| Ok::<_, DbFault>(sealing::copies_seen(conn, on.id, &[sector], now)?))
            .unwrap();
    }
}

/// Creates the transfer to the keeper, once, and checks what the keeper is told.
fn begin_to_store(fixture: &Fixture<'_>, keeper: &Machine) -> TaskHead {
    fixture.dispatch(NOW);
    let fetch = fixture.open("store").unwrap();
    assert_eq!(fetch.machine_id, Some(keeper.id));
    let input = fixture.told(keeper);
    assert_eq!(
        (
            input.from.as_str(),
            input.sector.comm_r.as_str(),
            input.prove_with.len()
        ),
        ("http://second", "33", 64)
    );
    fixture.dispatch(NOW + SECOND);
    let twice = fixture
        .db
        .read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?))
        .unwrap();
    assert_eq!(
        twice.iter().filter(|t| t.kind.name() == "store").count(),
        1,
        "the transfer is created once"
    );
    fetch
}

/// The old copy stays until the keeper itself has reported the sector, and recently.
fn assert_only_a_fresh_report_frees_the_old_copy(copies: &Copies<'_>) {
    let (fixture, keeper) = (copies.fixture, copies.keeper);
    let sector = fixture.stored();
    let another = StoredSector {
        number: sector.number + 1,
        ..sector
    };
    copies.assert_old_is_kept("the new machine has not reported the sector yet");
    copies.seen(keeper, sector, LATER - HOUR);
    copies.seen(keeper, another, LATER);
    copies.seen(&fixture.second, sector, LATER);
    copies.assert_old_is_kept("the last report of the new machine is an hour old");
    copies.seen(keeper, sector, LATER - MINUTE);
    assert_eq!(
        (copies.spare(&fixture.second), copies.spare(keeper)),
        (1, 0)
    );
}

#[test]
fn a_stored_sector_loses_its_old_copy_once_it_is_proven_from_the_new_place() {
    on_both(|db| {
        let fixture = fixture(db);
        let keeper = sealed(&fixture);
        read_up_to(db, fixture.sector.pool_id, EPOCHS_PER_DAY);
        let fetch = begin_to_store(&fixture, &keeper);
        assert!(fixture.report(&fetch, done(), NOW));
        assert_eq!(
            (fixture.sector().state, fixture.sector().machine_id),
            (SectorState::Active, Some(keeper.id))
        );
        let copies = Copies {
            fixture: &fixture,
            keeper: &keeper,
        };
        copies.assert_old_is_kept("the chain has not been read that far");
        copies.chain_is_read_until(LATER - MINUTE);
        copies.assert_old_is_kept("it may not have been proven from the new place yet");
        copies.chain_is_read_until(LATER);
        copies.sector_becomes("faulty");
        copies.assert_old_is_kept("the old copy may still save a faulty sector");
        copies.sector_becomes("active");
        assert_only_a_fresh_report_frees_the_old_copy(&copies);
        copies.keeper_is_lost(Some(NOW));
        copies.assert_old_is_kept("the new machine is lost");
        copies.keeper_is_lost(None);
        assert_eq!(
            copies.spare(&fixture.first),
            0,
            "no transfer from this machine is on record"
        );
        fixture.dispatch(LATER);
        assert!(
            fixture.open("store").is_none(),
            "a stored sector is not moved again"
        );
    });
}

#[test]
fn a_sector_that_cannot_be_stored_stays_where_it_is() {
    on_both(|db| {
        let fixture = fixture(db);
        let keeper = sealed(&fixture);
        fixture.dispatch(NOW);
        let fetch = fixture.open("store").unwrap();
        assert_eq!(fetch.machine_id, Some(keeper.id));
        assert!(fixture.report(&fetch, failed("what arrived cannot be proven"), NOW));
        let sector = fixture.sector();
        assert_eq!(
            (sector.state, sector.failures, sector.machine_id),
            (SectorState::Active, 0, Some(fixture.second.id))
        );
        fixture.dispatch(NOW + MINUTE);
        assert!(
            fixture.open("store").is_none(),
            "no retry before the pause is over"
        );
        fixture.dispatch(NOW + 11 * MINUTE);
        assert!(fixture.open("store").is_some());
    });
}
