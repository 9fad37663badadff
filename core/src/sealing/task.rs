//! Tasks: each is one step of work for one machine.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::Micros,
    ids::{ContractId, MachineId, PoolId, PostId, SectorId, TaskId},
    store::{
        AnyConnection, DbResult,
        schema::{sectors, tasks},
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum TaskKind {
    PreCommit1,
    /// Fetches the sector's layers from the machine that did PC1.
    Move,
    PreCommit2,
    Commit1,
    Commit2,
    Finalize,
    /// Fetches the sealed sector's files to a storage machine.
    Store,
    /// Vanilla proofs of the sectors that one machine stores.
    Vanilla,
    /// The SNARK over a partition's vanilla proofs.
    WindowPost,
}

stored_as_text!(TaskKind {
    PreCommit1 => "pc1",
    Move => "move",
    PreCommit2 => "pc2",
    Commit1 => "c1",
    Commit2 => "c2",
    Finalize => "finalize",
    Store => "store",
    Vanilla => "vanilla",
    WindowPost => "window_post",
});

impl TaskKind {
    /// Kinds that fetch files from another machine.
    pub const TRANSFERS: [Self; 2] = [Self::Move, Self::Store];

    #[must_use]
    pub fn is_transfer(self) -> bool {
        Self::TRANSFERS.contains(&self)
    }

    /// Proofs that are due go before any sealing step.
    #[must_use]
    pub const fn is_proving(self) -> bool {
        matches!(self, Self::Vanilla | Self::WindowPost)
    }
}

/// The state of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum TaskState {
    /// It waits for a machine.
    Ready,
    /// A machine holds a lease on it.
    Leased,
    Done,
    Failed,
}

stored_as_text!(TaskState {
    Ready => "ready",
    Leased => "leased",
    Done => "done",
    Failed => "failed",
});

#[derive(Clone, Debug, Queryable)]
pub struct Task {
    pub id: TaskId,
    pub kind: TaskKind,
    pub sector_id: Option<SectorId>,
    pub post_id: Option<PostId>,
    pub pool_id: PoolId,
    pub state: TaskState,
    pub pinned_to: Option<MachineId>,
    pub avoid: Option<MachineId>,
    pub input: String,
    pub output: Option<Vec<u8>>,
    pub machine_id: Option<MachineId>,
    pub fence: i64,
    pub lease_until: Option<Micros>,
    pub progress: Option<String>,
    pub attempts: i64,
    pub due_at: Micros,
    pub failure_level: Option<String>,
    pub failure: Option<String>,
    pub wall_ms: Option<i64>,
    pub cpu_ms: Option<i64>,
    pub peak_bytes: Option<i64>,
    pub created_at: Micros,
    pub done_at: Option<Micros>,
    /// Start of the present lease.
    pub started_at: Option<Micros>,
    /// When the machine that fetched the files last reported that it still has them.
    pub seen_at: Option<Micros>,
    /// The machine that a transfer fetches from.
    pub source_machine: Option<MachineId>,
}

/// States of a task that is not over.
pub(super) const OPEN: [TaskState; 2] = [TaskState::Ready, TaskState::Leased];

/// A task without its input and output: C1's output is tens of megabytes.
#[derive(Clone, Debug, Queryable, Selectable)]
#[diesel(table_name = tasks)]
pub struct TaskHead {
    pub id: TaskId,
    pub kind: TaskKind,
    pub sector_id: Option<SectorId>,
    pub post_id: Option<PostId>,
    pub pool_id: PoolId,
    pub state: TaskState,
    pub pinned_to: Option<MachineId>,
    pub avoid: Option<MachineId>,
    pub machine_id: Option<MachineId>,
    pub fence: i64,
    pub progress: Option<String>,
    pub due_at: Micros,
    pub failure: Option<String>,
    pub wall_ms: Option<i64>,
    pub peak_bytes: Option<i64>,
    pub created_at: Micros,
    /// Start of the present lease.
    pub started_at: Option<Micros>,
    /// The machine that a transfer fetches from.
    pub source_machine: Option<MachineId>,
}

impl TaskHead {
    #[must_use]
    pub fn is_open(&self) -> bool {
        OPEN.contains(&self.state)
    }
}

#[derive(Clone, Debug)]
pub struct NewTask {
    pub kind: TaskKind,
    pub sector: Option<SectorId>,
    pub post: Option<PostId>,
    pub pool: PoolId,
    /// The only machine that can do it, because the files are there.
    pub pinned_to: Option<MachineId>,
    /// The machine that should not do it, because it failed before.
    pub avoid: Option<MachineId>,
    /// The machine that a transfer fetches from.
    pub source_machine: Option<MachineId>,
    /// JSON.
    pub input: String,
    pub due_at: Micros,
}

pub fn create(conn: &mut AnyConnection, new: &NewTask, now: Micros) -> DbResult<TaskId> {
    diesel::insert_into(tasks::table)
        .values((
            tasks::kind.eq(new.kind),
            tasks::sector_id.eq(new.sector),
            tasks::post_id.eq(new.post),
            tasks::pool_id.eq(new.pool),
            tasks::state.eq(TaskState::Ready),
            tasks::pinned_to.eq(new.pinned_to),
            tasks::avoid.eq(new.avoid),
            tasks::source_machine.eq(new.source_machine),
            tasks::input.eq(&new.input),
            tasks::fence.eq(0),
            tasks::attempts.eq(0),
            tasks::due_at.eq(new.due_at),
            tasks::created_at.eq(now),
        ))
        .returning(tasks::id)
        .get_result(conn)
}

/// All ready and leased tasks, most urgent first.
pub fn open(conn: &mut AnyConnection) -> DbResult<Vec<TaskHead>> {
    tasks::table
        .filter(tasks::state.eq_any(OPEN))
        .order((tasks::due_at.asc(), tasks::id.asc()))
        .select(TaskHead::as_select())
        .load(conn)
}

/// All ready and leased tasks of a contract's sectors, oldest first.
pub fn open_of_contract(conn: &mut AnyConnection, contract: ContractId) -> DbResult<Vec<TaskHead>> {
    let of = sectors::table
        .filter(sectors::contract_id.eq(contract))
        .select(sectors::id.nullable());
    tasks::table
        .filter(tasks::state.eq_any(OPEN).and(tasks::sector_id.eq_any(of)))
        .order(tasks::id.asc())
        .select(TaskHead::as_select())
        .load(conn)
}

/// How many tasks are ready or leased.
pub fn count_open(conn: &mut AnyConnection) -> DbResult<i64> {
    tasks::table
        .filter(tasks::state.eq_any(OPEN))
        .count()
        .get_result(conn)
}

pub fn by_id(conn: &mut AnyConnection, id: TaskId) -> DbResult<Task> {
    tasks::table.find(id).first(conn)
}

/// The kind of a task that a machine holds a lease on.
pub fn leased_kind(
    conn: &mut AnyConnection,
    id: TaskId,
    machine: MachineId,
) -> DbResult<Option<TaskKind>> {
    let held = tasks::table.find(id).filter(
        tasks::machine_id
            .eq(machine)
            .and(tasks::state.eq(TaskState::Leased)),
    );
    held.select(tasks::kind).first(conn).optional()
}

/// Every task of a kind that a sector ever had, oldest first.
pub fn of_sector(
    conn: &mut AnyConnection,
    sector: SectorId,
    kind: TaskKind,
) -> DbResult<Vec<Task>> {
    tasks::table
        .filter(tasks::sector_id.eq(sector).and(tasks::kind.eq(kind)))
        .order(tasks::id.asc())
        .load(conn)
}

pub fn for_post(conn: &mut AnyConnection, post: PostId) -> DbResult<Vec<Task>> {
    tasks::table
        .filter(tasks::post_id.eq(post))
        .order(tasks::id.asc())
        .load(conn)
}

/// Like [`for_post`], without inputs and outputs.
pub fn heads_for_post(conn: &mut AnyConnection, post: PostId) -> DbResult<Vec<TaskHead>> {
    tasks::table
        .filter(tasks::post_id.eq(post))
        .order(tasks::id.asc())
        .select(TaskHead::as_select())
        .load(conn)
}

pub fn recent(conn: &mut AnyConnection, limit: i64) -> DbResult<Vec<TaskHead>> {
    tasks::table
        .order(tasks::id.desc())
        .limit(limit)
        .select(TaskHead::as_select())
        .load(conn)
}

/// Deletes C1's output and C2's input, which nothing needs once C2 is done.
pub fn forget_c1_output(conn: &mut AnyConnection, sector: SectorId) -> DbResult<()> {
    let of = |kind: TaskKind| {
        tasks::table.filter(
            tasks::sector_id
                .eq(sector)
                .and(tasks::kind.eq(kind))
                .and(tasks::state.eq(TaskState::Done)),
        )
    };
    diesel::update(of(TaskKind::Commit1))
        .set(tasks::output.eq(None::<Vec<u8>>))
        .execute(conn)?;
    diesel::update(of(TaskKind::Commit2))
        .set(tasks::input.eq(""))
        .execute(conn)
        .map(drop)
}

/// Selects the open tasks that nothing waits for any more.
#[derive(Clone, Copy)]
pub enum Of {
    Task(TaskId),
    Sector(SectorId),
    Post(PostId),
}

/// Fails the open tasks of `of`: no task may outlive its purpose.
pub fn cancel_open(conn: &mut AnyConnection, of: Of, reason: &str, now: Micros) -> DbResult<()> {
    let open = diesel::update(tasks::table).filter(tasks::state.eq_any(OPEN));
    let failed = (
        tasks::state.eq(TaskState::Failed),
        tasks::failure.eq(reason),
        tasks::done_at.eq(now),
    );
    match of {
        Of::Task(id) => open.filter(tasks::id.eq(id)).set(failed).execute(conn),
        Of::Sector(id) => open
            .filter(tasks::sector_id.eq(id))
            .set(failed)
            .execute(conn),
        Of::Post(id) => open.filter(tasks::post_id.eq(id)).set(failed).execute(conn),
    }
    .map(drop)
}
