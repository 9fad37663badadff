//! The pipeline: a sector's states, the tasks that machines do for it, the leases on those tasks,
//! and the messages to the chain.

mod advance;
mod cost;
mod failure;
mod files;
mod lease;
mod message;
mod on_chain;
mod report;
mod result;
mod sector;
mod state;
mod task;
mod transfer;

pub use advance::{
    begin_sealing, machine_lost, proof_verified, release, renew_ticket, seed_drawn, term_over,
    ticket_expired,
};
pub(crate) use cost::MIB;
pub use cost::{Cost, typical_seconds};
pub use files::not_needed;
pub use lease::{assign, expire_leases, give_up_lost, leases_of};
pub use message::{
    Landing, Message, MessageState, Purpose, Request as MessageRequest, Signed, adopted,
    build as build_message, by_id as message_by_id, gas_cost, give_up,
    in_state as messages_in_state, landed, latest as latest_message, next_attempt, pushed, refused,
    renew_identity, reopen as reopen_message, tried,
};
pub use on_chain::{Activation, OnChain, mark_on_chain};
pub use report::report;
pub use result::{StepOutput, longest_report};
pub use sector::{
    Sector, all as all_sectors, by_id as sector_by_id, by_number, count as count_sectors,
    in_states, lowest_number, of_contract, owners as sector_owners, owners_of, plan_sector,
    provisional, watched,
};
pub use state::{Event, SectorState, Transition, next};
pub use task::{
    NewTask, Of, Task, TaskHead, TaskKind, TaskState, by_id as task_by_id, cancel_open,
    count_open as count_open_tasks, create as create_task, for_post as tasks_for_post,
    heads_for_post as task_heads_for_post, leased_kind, of_sector as tasks_of_sector,
    open as open_tasks, open_of_contract as open_tasks_of_contract, recent as recent_tasks,
};
pub use transfer::{
    Grant, Setbacks, TRANSFER_PAUSE, ToStore, begin_move, begin_store, copies_seen, fetched,
    leftovers, setbacks, to_store,
};
