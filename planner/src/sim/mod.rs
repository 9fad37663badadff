//! The fleet at one moment: its resources, steps that start and end, what fails, what is known to happen.

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
