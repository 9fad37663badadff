//! Window post rows and the steps between them.

use std::collections::{BTreeMap, HashSet};

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    capacity::pool_by_id,
    clock::{MINUTE, Micros},
    fleet::{lost_machines, protocol::PostInput},
    ids::{MachineId, MessageId, PoolId, PostId},
    jobs::{self, AlertKind},
    on_conn,
    sealing::{self, NewTask, Of, Sector, StepOutput, Task, TaskKind, TaskState},
    store::{
        AnyConnection, DbResult,
        dialect::{self, Turn},
        schema::window_posts,
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum PostState {
    Vanilla,
    Proving,
    Proven,
    Submitted,
    Landed,
    Missed,
}

stored_as_text!(PostState {
    Vanilla => "vanilla",
    Proving => "proving",
    Proven => "proven",
    Submitted => "submitted",
    Landed => "landed",
    Missed => "missed",
});

#[derive(Clone, Debug, Queryable)]
pub struct WindowPost {
    pub id: PostId,
    pub pool_id: PoolId,
    pub deadline: i64,
    pub partition: i64,
    pub open_epoch: i64,
    pub close_epoch: i64,
    pub challenge_epoch: i64,
    /// Hex.
    pub randomness: String,
    /// JSON list of the sector numbers that should be proven.
    pub sectors: String,
    /// JSON list of the sector numbers that could not be proven.
    pub skipped: String,
    pub state: PostState,
    pub proof: Option<Vec<u8>>,
    pub message_id: Option<MessageId>,
    pub created_at: Micros,
}

impl WindowPost {
    #[must_use]
    pub fn sector_numbers(&self) -> Vec<i64> {
        serde_json::from_str(&self.sectors).unwrap_or_default()
    }

    #[must_use]
    pub fn skipped_numbers(&self) -> Vec<i64> {
        serde_json::from_str(&self.skipped).unwrap_or_default()
    }
}

/// A partition that is due.
#[derive(Clone, Debug)]
pub struct NewPost {
    pub pool: PoolId,
    pub deadline: i64,
    pub partition: i64,
    pub open_epoch: i64,
    pub close_epoch: i64,
    pub challenge_epoch: i64,
    pub randomness: String,
    pub sectors: Vec<i64>,
    /// When the window closes.
    pub due_at: Micros,
}

/// The sectors of a partition that a machine could not prove. The report was checked on receipt.
#[derive(Deserialize)]
struct Vanilla {
    faulty: Vec<(i64, String)>,
}

/// Begins a partition's proof. False: it was begun before. Sectors that no machine stores are
/// skipped from the start.
pub fn begin(conn: &mut AnyConnection, new: &NewPost, now: Micros) -> DbResult<bool> {
    let mut by_machine: BTreeMap<MachineId, Vec<Sector>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for number in &new.sectors {
        match sealing::by_number(conn, new.pool, *number)?
            .and_then(|s| s.machine_id.map(|m| (m, s)))
        {
            Some((machine, sector)) => by_machine.entry(machine).or_default().push(sector),
            None => skipped.push(*number),
        }
    }
    let Some(post) = insert(conn, new, &skipped, now)? else {
        return Ok(false);
    };
    let pool = pool_by_id(conn, new.pool)?;
    for (machine, sectors) in by_machine {
        let input = PostInput {
            randomness: new.randomness.clone(),
            sectors: sectors.iter().map(|s| s.input(&pool)).collect(),
            vanilla: Vec::new(),
        };
        let vanilla = NewTask {
            pinned_to: Some(machine),
            ..step(&post, TaskKind::Vanilla, &input, new.due_at)
        };
        sealing::create_task(conn, &vanilla, now)?;
    }
    Ok(true)
}

/// `None`: this window's partition has its row already.
fn insert(
    conn: &mut AnyConnection,
    new: &NewPost,
    skipped: &[i64],
    now: Micros,
) -> DbResult<Option<WindowPost>> {
    let values = (
        window_posts::pool_id.eq(new.pool),
        window_posts::deadline.eq(new.deadline),
        window_posts::partition.eq(new.partition),
        window_posts::open_epoch.eq(new.open_epoch),
        window_posts::close_epoch.eq(new.close_epoch),
        window_posts::challenge_epoch.eq(new.challenge_epoch),
        window_posts::randomness.eq(&new.randomness),
        window_posts::sectors.eq(json(&new.sectors)),
        window_posts::skipped.eq(json(skipped)),
        window_posts::state.eq(PostState::Vanilla),
        window_posts::created_at.eq(now),
    );
    let inserted = on_conn!(&mut *conn, |c| diesel::insert_into(window_posts::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 0 {
        return Ok(None);
    }
    window_posts::table
        .filter(window_posts::pool_id.eq(new.pool))
        .filter(
            window_posts::open_epoch
                .eq(new.open_epoch)
                .and(window_posts::partition.eq(new.partition)),
        )
        .first(conn)
        .map(Some)
}

/// Time left for the SNARK when the server stops waiting for machines that have not read their
/// sectors.
const FOR_THE_SNARK: Micros = 18 * MINUTE;
/// Machines get at least this long to read, however late the window was noticed.
const LEAST_TO_READ: Micros = 5 * MINUTE;

/// Goes on with proofs without machines that are lost or too slow. They must not cost the other
/// machines' sectors, so only their own become faulty. Returns how many sectors were given up.
pub fn go_on_without_silent(
    conn: &mut AnyConnection,
    pool: PoolId,
    now: Micros,
) -> DbResult<usize> {
    let waiting = in_state(conn, PostState::Vanilla)?
        .into_iter()
        .filter(|post| post.pool_id == pool);
    let lost = lost_machines(conn)?;
    let mut given_up = 0;
    for WindowPost { id, .. } in waiting.collect::<Vec<_>>() {
        dialect::lock(conn, Turn::WindowPost(id))?;
        let post = by_id(conn, id)?;
        if post.state != PostState::Vanilla {
            continue;
        }
        let silent = cancel_silent(conn, &post, &lost, now)?;
        if !silent.is_empty() {
            given_up += silent.len();
            let skipped = [post.skipped_numbers(), silent].concat();
            diesel::update(window_posts::table.find(id))
                .set(window_posts::skipped.eq(json(&skipped)))
                .execute(conn)?;
            let post = by_id(conn, id)?;
            vanilla_done(conn, &post, now)?;
        }
    }
    Ok(given_up)
}

/// Cancels the vanilla proofs that are not waited for any longer. Returns their sectors.
fn cancel_silent(
    conn: &mut AnyConnection,
    post: &WindowPost,
    lost: &HashSet<MachineId>,
    now: Micros,
) -> DbResult<Vec<i64>> {
    let tasks = sealing::task_heads_for_post(conn, post.id)?;
    let others_are_ready = tasks.iter().any(|t| t.state == TaskState::Done);
    let mut sectors = Vec::new();
    for task in tasks.iter().filter(|t| t.is_open()) {
        // A lost machine may be back in time, but nobody waits for it when others are ready.
        let is_lost = task
            .pinned_to
            .is_some_and(|machine| lost.contains(&machine));
        let least = task.created_at + LEAST_TO_READ;
        let last_call = if is_lost && others_are_ready {
            least
        } else {
            least.max(task.due_at - FOR_THE_SNARK)
        };
        if now > last_call {
            sealing::cancel_open(conn, Of::Task(task.id), "the proof went on without it", now)?;
            sectors.extend(sectors_of(&sealing::task_by_id(conn, task.id)?));
        }
    }
    Ok(sectors)
}

fn sectors_of(task: &Task) -> Vec<i64> {
    let input = serde_json::from_str::<PostInput>(&task.input);
    input
        .map(|own| {
            own.sectors
                .iter()
                .filter_map(|s| i64::try_from(s.number).ok())
                .collect()
        })
        .unwrap_or_default()
}

fn json(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).unwrap_or_default()
}

/// A step of a proof, for any machine.
fn step(post: &WindowPost, kind: TaskKind, input: &PostInput, due_at: Micros) -> NewTask {
    NewTask {
        kind,
        sector: None,
        post: Some(post.id),
        pool: post.pool_id,
        pinned_to: None,
        avoid: None,
        source_machine: None,
        input: serde_json::to_string(input).unwrap_or_default(),
        due_at,
    }
}

/// Takes the result of a vanilla or SNARK task. The next step follows when the last task of its
/// kind is done.
pub fn step_done(
    conn: &mut AnyConnection,
    id: PostId,
    kind: TaskKind,
    output: StepOutput,
    now: Micros,
) -> DbResult<()> {
    // The last of several machines moves the post on, so they must see each other's results.
    dialect::lock(conn, Turn::WindowPost(id))?;
    let post = by_id(conn, id)?;
    match (kind, output) {
        (TaskKind::Vanilla, _) => vanilla_done(conn, &post, now),
        (TaskKind::WindowPost, StepOutput::Proof(proof)) => move_on(
            conn,
            &post,
            PostState::Proving,
            PostState::Proven,
            Some(proof),
        )
        .map(drop),
        _ => Ok(()),
    }
}

fn vanilla_done(conn: &mut AnyConnection, post: &WindowPost, now: Micros) -> DbResult<()> {
    let tasks = sealing::tasks_for_post(conn, post.id)?;
    let vanilla: Vec<&Task> = tasks
        .iter()
        .filter(|t| t.kind == TaskKind::Vanilla && t.state != TaskState::Failed)
        .collect();
    if vanilla.iter().any(|t| t.state != TaskState::Done) {
        return Ok(());
    }
    if move_on(conn, post, PostState::Vanilla, PostState::Proving, None)? == 0 {
        return Ok(());
    }
    let (input, faulty) = snark_input(post, &vanilla);
    let mut skipped = [post.skipped_numbers(), faulty].concat();
    skipped.sort_unstable();
    diesel::update(window_posts::table.find(post.id))
        .set(window_posts::skipped.eq(json(&skipped)))
        .execute(conn)?;
    if skipped.len() >= post.sector_numbers().len() {
        // Nothing is left to prove: the chain notices the faults when the window closes.
        return move_on(conn, post, PostState::Proving, PostState::Missed, None).map(drop);
    }
    let due_at = vanilla.last().map_or(now, |task| task.due_at);
    let snark = step(post, TaskKind::WindowPost, &input, due_at);
    sealing::create_task(conn, &snark, now).map(drop)
}

/// The SNARK's input from the results of the vanilla tasks, and the sectors that could not be
/// proven.
fn snark_input(post: &WindowPost, vanilla: &[&Task]) -> (PostInput, Vec<i64>) {
    let mut input = PostInput {
        randomness: post.randomness.clone(),
        sectors: Vec::new(),
        vanilla: Vec::new(),
    };
    let mut not_proven = Vec::new();
    for task in vanilla {
        let output = task
            .output
            .as_deref()
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .unwrap_or("null");
        if let Ok(Vanilla { faulty }) = serde_json::from_str(output) {
            not_proven.extend(faulty.into_iter().map(|(number, _)| number));
        }
        input
            .vanilla
            .extend(RawValue::from_string(output.to_owned()));
        if let Ok(own) = serde_json::from_str::<PostInput>(&task.input) {
            input.sectors.extend(own.sectors);
        }
    }
    (input, not_proven)
}

/// Always retries a step of a proof that is still due, on another machine if possible.
pub fn step_failed(
    conn: &mut AnyConnection,
    id: PostId,
    task: &Task,
    machine: MachineId,
    now: Micros,
) -> DbResult<()> {
    let post = by_id(conn, id)?;
    let kind = task.kind;
    if post.state == PostState::Missed {
        return Ok(());
    }
    let again = NewTask {
        kind,
        sector: None,
        post: Some(id),
        pool: post.pool_id,
        pinned_to: task.pinned_to,
        avoid: Some(machine).filter(|_| task.pinned_to.is_none() && task.avoid.is_none()),
        source_machine: None,
        input: task.input.clone(),
        due_at: task.due_at,
    };
    sealing::create_task(conn, &again, now).map(drop)
}

fn move_on(
    conn: &mut AnyConnection,
    post: &WindowPost,
    from: PostState,
    to: PostState,
    proof: Option<Vec<u8>>,
) -> DbResult<usize> {
    let row = window_posts::table.filter(
        window_posts::id
            .eq(post.id)
            .and(window_posts::state.eq(from)),
    );
    match proof {
        Some(proof) => diesel::update(row)
            .set((window_posts::state.eq(to), window_posts::proof.eq(proof)))
            .execute(conn),
        None => diesel::update(row)
            .set(window_posts::state.eq(to))
            .execute(conn),
    }
}

pub fn by_id(conn: &mut AnyConnection, id: PostId) -> DbResult<WindowPost> {
    window_posts::table.find(id).first(conn)
}

pub fn in_state(conn: &mut AnyConnection, state: PostState) -> DbResult<Vec<WindowPost>> {
    window_posts::table
        .filter(window_posts::state.eq(state))
        .order(window_posts::id.asc())
        .load(conn)
}

/// Records that the proof's message was stored, in the same transaction.
pub fn submitted(conn: &mut AnyConnection, post: &WindowPost, message: MessageId) -> DbResult<()> {
    let proven = window_posts::table.filter(
        window_posts::id
            .eq(post.id)
            .and(window_posts::state.eq(PostState::Proven)),
    );
    diesel::update(proven)
        .set((
            window_posts::state.eq(PostState::Submitted),
            window_posts::message_id.eq(message),
        ))
        .execute(conn)
        .map(drop)
}

/// Our own verification rejected the SNARK: has it made again, on another machine if possible.
pub fn rejected(conn: &mut AnyConnection, id: PostId, now: Micros) -> DbResult<()> {
    dialect::lock(conn, Turn::WindowPost(id))?;
    let post = by_id(conn, id)?;
    let tasks = sealing::tasks_for_post(conn, id)?;
    let Some(made) = tasks.iter().rev().find(|t| t.kind == TaskKind::WindowPost) else {
        return Ok(());
    };
    if move_on(conn, &post, PostState::Proven, PostState::Proving, None)? == 0 {
        return Ok(());
    }
    let again = NewTask {
        kind: TaskKind::WindowPost,
        sector: None,
        post: Some(id),
        pool: post.pool_id,
        pinned_to: None,
        avoid: made.machine_id,
        source_machine: None,
        input: made.input.clone(),
        due_at: made.due_at,
    };
    sealing::create_task(conn, &again, now).map(drop)
}

/// Takes the receipt. The post has landed, or returns to proven, so that its proof is sent again
/// while the window is open. A late receipt shows that the window was not missed after all.
pub fn landed(conn: &mut AnyConnection, id: PostId, exit_code: i64) -> DbResult<()> {
    let post = by_id(conn, id)?;
    if exit_code != 0 {
        return move_on(conn, &post, PostState::Submitted, PostState::Proven, None).map(drop);
    }
    for from in [PostState::Submitted, PostState::Missed] {
        move_on(conn, &post, from, PostState::Landed, None)?;
    }
    jobs::clear(conn, AlertKind::MissedWindow, &place(&post)).map(drop)
}

/// The chain was reorganised and no longer has the proof, so its message is watched again.
pub fn taken_back(conn: &mut AnyConnection, id: PostId, now: Micros) -> DbResult<()> {
    let post = by_id(conn, id)?;
    if move_on(conn, &post, PostState::Landed, PostState::Submitted, None)? == 0 {
        return Ok(());
    }
    match post.message_id {
        Some(message) => sealing::reopen_message(conn, message, now),
        None => Ok(()),
    }
}

/// A partition's name in alerts.
fn place(post: &WindowPost) -> String {
    format!("{}:{}:{}", post.pool_id, post.deadline, post.partition)
}

/// States of a proof that is not known to have landed, and has not missed its window.
const NOT_LANDED: [PostState; 4] = [
    PostState::Vanilla,
    PostState::Proving,
    PostState::Proven,
    PostState::Submitted,
];

/// A pool's windows that have closed at epoch `head` without a proof known to have landed.
pub fn closed(conn: &mut AnyConnection, pool: PoolId, head: i64) -> DbResult<Vec<WindowPost>> {
    window_posts::table
        .filter(
            window_posts::pool_id
                .eq(pool)
                .and(window_posts::state.eq_any(NOT_LANDED)),
        )
        .filter(window_posts::close_epoch.le(head))
        .order(window_posts::id.asc())
        .load(conn)
}

/// Records that a window has closed without its proof. Cancels its tasks, which would only delay
/// the open windows. False: this was recorded before.
pub fn miss(conn: &mut AnyConnection, post: &WindowPost, now: Micros) -> DbResult<bool> {
    let row = window_posts::table.filter(
        window_posts::id
            .eq(post.id)
            .and(window_posts::state.eq_any(NOT_LANDED)),
    );
    if diesel::update(row)
        .set(window_posts::state.eq(PostState::Missed))
        .execute(conn)?
        == 0
    {
        return Ok(false);
    }
    sealing::cancel_open(conn, Of::Post(post.id), "the window has closed", now)?;
    let text = format!(
        "the window of deadline {} partition {} that opened at epoch {} closed without its proof: \
         {} sectors are faulty until they recover",
        post.deadline,
        post.partition,
        post.open_epoch,
        post.sector_numbers().len()
    );
    jobs::raise(conn, AlertKind::MissedWindow, &place(post), &text, now)?;
    Ok(true)
}
