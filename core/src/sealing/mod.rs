//! The pipeline: a sector's states, the tasks that machines do for it, the leases under which they do them, and the messages
//! that the chain must see.

mod advance;
mod cost;
mod lease;
mod message;
mod report;
mod sector;
mod state;
mod task;

pub use advance::{
    Activation, OnChain, begin_sealing, machine_lost, mark_on_chain, proof_verified, release, seed_drawn, ticket_expired,
};
pub use cost::{Cost, typical_seconds};
pub use lease::{assign, expire_leases, give_up_lost, leases_of};
pub use message::{
    Landing, Message, MessageState, Purpose, attempts as message_attempts, build as build_message, gas_cost, give_up,
    in_state as messages_in_state, landed, pre_commit_message, pushed, refused,
};
pub use report::{ReportError, report};
pub use sector::{Sector, all as all_sectors, by_id as sector_by_id, by_number, in_states, of_contract, plan_sector};
pub use state::{Event, SectorState, Transition, next};
pub use task::{
    NewTask, Task, TaskKind, abandon as abandon_task, create as create_task, for_post as tasks_for_post,
    of_sector as tasks_of_sector, open as open_tasks, recent as recent_tasks,
};
