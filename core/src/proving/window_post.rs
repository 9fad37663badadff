//! Window post rows and the steps between them.

use std::collections::BTreeMap;

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::sealing::TaskState;
use crate::{
    capacity::pool_by_id,
    clock::{MINUTE, Micros},
    fleet::{lost_machines, protocol::PostInput},
    ids::{MachineId, MessageId, PoolId, PostId},
    jobs::{self, AlertKind},
    on_conn,
    sealing::{self, NewTask, Of, Sector, StepOutput, Task, TaskKind},
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
    /// JSON list of those that could not be.
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

/// Of what a machine said about its sectors of a partition, those that it could not prove. It was checked on receipt.
#[derive(Deserialize)]
struct Vanilla {
    faulty: Vec<(i64, String)>,
}

/// Begins a partition's proof; false when it was begun before. Sectors that no machine stores are skipped from the start.
pub fn begin(conn: &mut AnyConnection, new: &NewPost, now: Micros) -> DbResult<bool> {
    let mut by_machine: BTreeMap<MachineId, Vec<Sector>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for number in &new.sectors {
        match sealing::by_number(conn, new.pool, *number)?.and_then(|s| s.machine_id.map(|m| (m, s))) {
            Some((machine, sector)) => by_machine.entry(machine).or_default().push(sector),
            None => skipped.push(*number),
        }
    }
    let values = (
        window_posts::pool_id.eq(new.pool),
        window_posts::deadline.eq(new.deadline),
        window_posts::partition.eq(new.partition),
        window_posts::open_epoch.eq(new.open_epoch),
        window_posts::close_epoch.eq(new.close_epoch),
        window_posts::challenge_epoch.eq(new.challenge_epoch),
        window_posts::randomness.eq(&new.randomness),
        window_posts::sectors.eq(json(&new.sectors)),
        window_posts::skipped.eq(json(&skipped)),
        window_posts::state.eq(PostState::Vanilla),
        window_posts::created_at.eq(now),
    );
    let inserted =
        on_conn!(&mut *conn, |c| diesel::insert_into(window_posts::table).values(values).on_conflict_do_nothing().execute(c))?;
    if inserted == 0 {
        return Ok(false);
    }
    let post: WindowPost = window_posts::table
        .filter(window_posts::pool_id.eq(new.pool))
        .filter(window_posts::open_epoch.eq(new.open_epoch).and(window_posts::partition.eq(new.partition)))
        .first(conn)?;
    let pool = pool_by_id(conn, new.pool)?;
    for (machine, sectors) in by_machine {
        let inputs = sectors.iter().map(|s| s.input(&pool)).collect();
        let input = PostInput { randomness: new.randomness.clone(), sectors: inputs, vanilla: Vec::new() };
        queue(conn, &post, TaskKind::Vanilla, Some(machine), &input, new.due_at, now)?;
    }
    Ok(true)
}

/// What is left to a SNARK when machines that have not read their sectors are no longer waited for.
const FOR_THE_SNARK: Micros = 18 * MINUTE;
/// However late a window was noticed, machines have so long to read.
const LEAST_TO_READ: Micros = 5 * MINUTE;

/// One machine that is lost or too slow must not cost the others' sectors: the proof goes on without those that it stores, and they
/// alone become faulty. Returns how many sectors are given up.
pub fn go_on_without_silent(conn: &mut AnyConnection, pool: PoolId, now: Micros) -> DbResult<usize> {
    let waiting = in_state(conn, PostState::Vanilla)?.into_iter().filter(|post| post.pool_id == pool);
    let lost = lost_machines(conn)?;
    let mut given_up = 0;
    for WindowPost { id, .. } in waiting.collect::<Vec<_>>() {
        dialect::lock(conn, Turn::WindowPost(id))?;
        let post = by_id(conn, id)?;
        let mut skipped = post.skipped_numbers();
        let before = skipped.len();
        let tasks = sealing::task_heads_for_post(conn, id)?;
        let others_are_ready = tasks.iter().any(|t| t.state == TaskState::Done);
        for task in tasks.iter().filter(|t| t.is_open()) {
            // A lost machine may be back in time, but is not waited for when others are ready.
            let is_lost = task.pinned_to.is_some_and(|machine| lost.contains(&machine));
            let least = task.created_at + LEAST_TO_READ;
            let last_call = if is_lost && others_are_ready { least } else { least.max(task.due_at - FOR_THE_SNARK) };
            if post.state == PostState::Vanilla && now > last_call {
                sealing::cancel_open(conn, Of::Task(task.id), "the proof went on without it", now)?;
                skipped.extend(sectors_of(&sealing::task_by_id(conn, task.id)?));
            }
        }
        if skipped.len() > before {
            given_up += skipped.len() - before;
            diesel::update(window_posts::table.find(id)).set(window_posts::skipped.eq(json(&skipped))).execute(conn)?;
            let post = by_id(conn, id)?;
            vanilla_done(conn, &post, now)?;
        }
    }
    Ok(given_up)
}

fn sectors_of(task: &Task) -> Vec<i64> {
    let input = serde_json::from_str::<PostInput>(&task.input);
    input.map(|own| own.sectors.iter().filter_map(|s| i64::try_from(s.number).ok()).collect()).unwrap_or_default()
}

fn json(numbers: &[i64]) -> String {
    serde_json::to_string(numbers).unwrap_or_default()
}

fn queue(
    conn: &mut AnyConnection,
    post: &WindowPost,
    kind: TaskKind,
    pinned_to: Option<MachineId>,
    input: &PostInput,
    due_at: Micros,
    now: Micros,
) -> DbResult<()> {
    let input = serde_json::to_string(input).unwrap_or_default();
    let task = NewTask { kind, sector: None, post: Some(post.id), pool: post.pool_id, pinned_to, avoid: None, input, due_at };
    sealing::create_task(conn, &task, now).map(drop)
}

/// A vanilla or SNARK task of a post is done: when it was the last one of its kind, the next step follows.
pub fn step_done(conn: &mut AnyConnection, id: PostId, kind: TaskKind, output: StepOutput, now: Micros) -> DbResult<()> {
    // The last of several machines moves the post on: they must see each other's results.
    dialect::lock(conn, Turn::WindowPost(id))?;
    let post = by_id(conn, id)?;
    match (kind, output) {
        (TaskKind::Vanilla, _) => vanilla_done(conn, &post, now),
        (TaskKind::WindowPost, StepOutput::Proof(proof)) => {
            move_on(conn, &post, PostState::Proving, PostState::Proven, Some(proof)).map(drop)
        }
        _ => Ok(()),
    }
}

fn vanilla_done(conn: &mut AnyConnection, post: &WindowPost, now: Micros) -> DbResult<()> {
    let tasks = sealing::tasks_for_post(conn, post.id)?;
    let vanilla: Vec<&Task> = tasks.iter().filter(|t| t.kind == TaskKind::Vanilla && t.state != TaskState::Failed).collect();
    if vanilla.iter().any(|t| t.state != TaskState::Done) {
        return Ok(());
    }
    if move_on(conn, post, PostState::Vanilla, PostState::Proving, None)? == 0 {
        return Ok(());
    }
    let mut skipped = post.skipped_numbers();
    let mut input = PostInput { randomness: post.randomness.clone(), sectors: Vec::new(), vanilla: Vec::new() };
    let mut due_at = now;
    for task in vanilla {
        let output = task.output.as_deref().and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("null");
        if let Ok(Vanilla { faulty }) = serde_json::from_str(output) {
            skipped.extend(faulty.into_iter().map(|(number, _)| number));
        }
        input.vanilla.extend(RawValue::from_string(output.to_owned()));
        if let Ok(own) = serde_json::from_str::<PostInput>(&task.input) {
            input.sectors.extend(own.sectors);
        }
        due_at = task.due_at;
    }
    skipped.sort_unstable();
    diesel::update(window_posts::table.find(post.id)).set(window_posts::skipped.eq(json(&skipped))).execute(conn)?;
    if skipped.len() >= post.sector_numbers().len() {
        // Nothing is left to prove: the chain notices the faults when the window closes.
        return move_on(conn, post, PostState::Proving, PostState::Missed, None).map(drop);
    }
    queue(conn, post, TaskKind::WindowPost, None, &input, due_at, now)
}

/// A step of a proof that is due is always tried again, elsewhere when that is possible.
pub fn step_failed(conn: &mut AnyConnection, id: PostId, task: &Task, machine: MachineId, now: Micros) -> DbResult<()> {
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
    let row = window_posts::table.filter(window_posts::id.eq(post.id).and(window_posts::state.eq(from)));
    match proof {
        Some(proof) => diesel::update(row).set((window_posts::state.eq(to), window_posts::proof.eq(proof))).execute(conn),
        None => diesel::update(row).set(window_posts::state.eq(to)).execute(conn),
    }
}

pub fn by_id(conn: &mut AnyConnection, id: PostId) -> DbResult<WindowPost> {
    window_posts::table.find(id).first(conn)
}

pub fn in_state(conn: &mut AnyConnection, state: PostState) -> DbResult<Vec<WindowPost>> {
    window_posts::table.filter(window_posts::state.eq(state)).order(window_posts::id.asc()).load(conn)
}

/// Its message is stored; in the same transaction.
pub fn submitted(conn: &mut AnyConnection, post: &WindowPost, message: MessageId) -> DbResult<()> {
    let proven = window_posts::table.filter(window_posts::id.eq(post.id).and(window_posts::state.eq(PostState::Proven)));
    diesel::update(proven)
        .set((window_posts::state.eq(PostState::Submitted), window_posts::message_id.eq(message)))
        .execute(conn)
        .map(drop)
}

/// Our own verification says that the SNARK is wrong: it is made again, elsewhere when that is possible.
pub fn rejected(conn: &mut AnyConnection, id: PostId, now: Micros) -> DbResult<()> {
    dialect::lock(conn, Turn::WindowPost(id))?;
    let post = by_id(conn, id)?;
    let tasks = sealing::tasks_for_post(conn, id)?;
    let Some(made) = tasks.iter().rev().find(|t| t.kind == TaskKind::WindowPost) else { return Ok(()) };
    if move_on(conn, &post, PostState::Proven, PostState::Proving, None)? == 0 {
        return Ok(());
    }
    let (kind, pool, avoid) = (TaskKind::WindowPost, post.pool_id, made.machine_id);
    let (input, due_at) = (made.input.clone(), made.due_at);
    let again = NewTask { kind, sector: None, post: Some(id), pool, pinned_to: None, avoid, input, due_at };
    sealing::create_task(conn, &again, now).map(drop)
}

/// The receipt: landed, or back to proven, so that it is sent again while the window is open. A receipt that comes late tells that the
/// window was not missed after all.
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

/// The chain was reorganised and does not have the proof any more: its message is watched again.
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

/// A partition's place, as alerts name it.
fn place(post: &WindowPost) -> String {
    format!("{}:{}:{}", post.pool_id, post.deadline, post.partition)
}

/// Windows of a pool that have closed at `head` and whose proof is not known to have landed.
pub fn closed(conn: &mut AnyConnection, pool: PoolId, head: i64) -> DbResult<Vec<WindowPost>> {
    let open = [PostState::Vanilla, PostState::Proving, PostState::Proven, PostState::Submitted].map(PostState::name);
    window_posts::table
        .filter(window_posts::pool_id.eq(pool).and(window_posts::state.eq_any(open)))
        .filter(window_posts::close_epoch.le(head))
        .order(window_posts::id.asc())
        .load(conn)
}

/// A window has closed without its proof. Its steps would only be in the way of the windows that are open. False: it was known.
pub fn miss(conn: &mut AnyConnection, post: &WindowPost, now: Micros) -> DbResult<bool> {
    let open = [PostState::Vanilla, PostState::Proving, PostState::Proven, PostState::Submitted].map(PostState::name);
    let row = window_posts::table.filter(window_posts::id.eq(post.id).and(window_posts::state.eq_any(open)));
    if diesel::update(row).set(window_posts::state.eq(PostState::Missed)).execute(conn)? == 0 {
        return Ok(false);
    }
    sealing::cancel_open(conn, Of::Post(post.id), "the window has closed", now)?;
    let text = format!(
        "the window of deadline {} partition {} that opened at epoch {} closed without its proof: {} sectors are faulty until they recover",
        post.deadline,
        post.partition,
        post.open_epoch,
        post.sector_numbers().len()
    );
    jobs::raise(conn, AlertKind::MissedWindow, &place(post), &text, now)?;
    Ok(true)
}
