//! The simulated fleet: its resources, the starts and ends of steps, failures, and future events.

pub mod agenda;
pub mod chance;
pub mod change;
pub mod failures;
pub mod gpu_preference;
pub mod pace;
pub mod passes;
pub mod resources;
pub mod resume;
pub mod steps;
pub mod survey;
pub mod world;
