//! Files that a machine may drop.

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    clock::HOUR,
    fleet::{
        Machine,
        protocol::{FailureLevel, StoredSector},
    },
    sealing::{self, Sector, SectorState, TaskHead},
    store::{AnyConnection, Database, DbFault, schema},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{assign, failed, report, sector_in_pc1};
use crate::support::{NOW, counts, machine, on_both, read_up_to};

/// A sector with files on two machines. Both also have files of two unknown sectors.
struct Fixture<'d> {
    db: &'d Database,
    sector: Sector,
    task: TaskHead,
    a: Machine,
    b: Machine,
}

impl<'d> Fixture<'d> {
    fn new(db: &'d Database) -> Self {
        let (sector, task) = sector_in_pc1(db);
        Self {
            db,
            sector,
            task,
            a: machine(db, "a"),
            b: machine(db, "b"),
        }
    }

    fn here(&self) -> StoredSector {
        StoredSector {
            miner: 1000,
            number: u64::try_from(self.sector.number).unwrap(),
        }
    }

    /// The sectors that a machine need not keep.
    fn over(&self, of: &Machine) -> Vec<StoredSector> {
        let here = self.here();
        let all = [
            StoredSector {
                miner: 1001,
                ..here
            },
            here,
            StoredSector {
                number: 999,
                ..here
            },
        ];
        self.db
            .read(|conn| sealing::not_needed(conn, of.id, &all, NOW).map_err(DbFault::from))
            .unwrap()
    }

    fn read_up_to(&self, epoch: i64) {
        read_up_to(self.db, self.sector.pool_id, epoch);
    }

    /// The sector gets into this state with its sealed files on the first machine.
    fn becomes(&self, state: SectorState, activation: Option<i64>) {
        use schema::sectors as s;
        let values = (
            s::state.eq(state.name()),
            s::machine_id.eq(self.a.id),
            s::activation.eq(activation),
            s::expiration.eq(5000),
        );
        self.db
            .write(|conn| {
                diesel::update(s::table.find(self.sector.id))
                    .set(values)
                    .execute(conn)
            })
            .unwrap();
    }
}

#[test]
fn files_are_dropped_only_when_the_sector_is_sealed_elsewhere_or_over() {
    on_both(|db| {
        let fixture = Fixture::new(db);
        assert_eq!(
            fixture.over(&fixture.a),
            [],
            "nothing is dropped before the chain is read"
        );
        fixture.read_up_to(EPOCHS_PER_DAY);
        only_the_machine_that_seals_keeps_files(&fixture);
        a_live_sector_keeps_its_files(&fixture);
        a_sector_that_is_over_keeps_none(&fixture);
    });
}

fn only_the_machine_that_seals_keeps_files(fixture: &Fixture) {
    let Fixture { db, task, a, b, .. } = fixture;
    let (here, over) = (fixture.here(), |of| fixture.over(of));
    assert_eq!(
        over(a),
        [here],
        "files of unfinished attempts can go, and files of unknown sectors stay"
    );
    assert!(assign(db, task, a));
    assert_eq!(
        (over(a), over(b)),
        (vec![], vec![here]),
        "it is being sealed on the first machine"
    );
    let expire =
        |conn: &mut AnyConnection| Ok::<_, DbFault>(sealing::expire_leases(conn, NOW + HOUR)?);
    assert!(db.transact(expire).unwrap() == 1 && assign(db, task, b));
    assert_eq!(
        (over(a), over(b)),
        (vec![here], vec![]),
        "another machine has taken over the task of the first"
    );
    let outcome = failed(FailureLevel::Abort, "damaged");
    assert!(report(db, b, task.id.0, 2, outcome));
    assert_eq!((over(a), over(b)), (vec![here], vec![here]));
}

fn a_live_sector_keeps_its_files(fixture: &Fixture) {
    for state in SectorState::ALL
        .into_iter()
        .filter(|s| *s != SectorState::Expired)
    {
        fixture.becomes(state, Some(100));
        assert_eq!(fixture.over(&fixture.a), [], "{state:?}");
        let stays = state.is_on_chain()
            || matches!(
                state,
                SectorState::ProveCommitting | SectorState::Quarantined
            );
        assert_eq!(
            fixture.over(&fixture.b).is_empty(),
            stays,
            "{state:?}: sectors on chain keep all their copies"
        );
    }
}

fn a_sector_that_is_over_keeps_none(fixture: &Fixture) {
    let Fixture { a, b, sector, .. } = fixture;
    let (here, over) = (fixture.here(), |of| fixture.over(of));
    fixture.becomes(SectorState::Expired, Some(100));
    assert_eq!(
        over(a),
        [],
        "the chain has not been read up to its expiration"
    );
    fixture.read_up_to(5001);
    assert_eq!(over(a), [here]);
    fixture.becomes(SectorState::Expired, None);
    fixture.read_up_to(EPOCHS_PER_DAY);
    assert_eq!(over(a), [here], "it was never on chain");
    fixture.becomes(SectorState::Planned, None);
    assert_eq!(over(b), [here]);
    counts(fixture.db, sector.pool_id, sector.number);
    assert_eq!(
        over(b),
        [],
        "the chain counts it, whatever the sector row says"
    );
}
