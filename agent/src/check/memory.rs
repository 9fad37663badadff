//! Memory, within the limits of control groups.

use sealyard_core::units::Bytes;
use sealyard_filecoin::sector::SealProof;

use super::{
    Finding,
    needs::{Resource, compared},
};
use crate::hardware::memory::{self, Memory};

pub fn finding(size: Option<SealProof>) -> Finding {
    let memory = memory::read();
    compared(Resource::Memory, memory.usable(), described(memory), size)
}

fn described(memory: Memory) -> String {
    let total = Bytes(memory.total);
    match memory.limit.filter(|limit| *limit < memory.total) {
        Some(limit) => format!("{} by a control group's limit, of {total}", Bytes(limit)),
        None => total.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_counts_is_named() {
        let memory = |limit| Memory {
            total: 8 << 30,
            limit,
        };
        for (limit, text) in [
            (None, "8 GiB"),
            (Some(16 << 30), "8 GiB"),
            (Some(2 << 30), "2 GiB by a control group's limit, of 8 GiB"),
        ] {
            assert_eq!(described(memory(limit)), text);
        }
    }
}
