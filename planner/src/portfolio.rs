//! Rules that a search begins with.

use crate::{HOUR, Policy, Rule, Secs};

/// The first rules of [`portfolio`], which have the usual look-ahead and gate.
pub(crate) const USUAL_RULES: usize = 6;

/// Rules to begin with. Those that win most often come first.
pub(crate) fn portfolio(burst: Option<Secs>) -> impl Iterator<Item = Policy> {
    let base = Policy {
        burst,
        ..Policy::default()
    };
    let rules = [
        (Rule::Atc, 2),
        (Rule::Wmdd, 3),
        (Rule::Atc, 1),
        (Rule::Atc, 4),
        (Rule::Edd, 3),
        (Rule::Atc, 10),
    ];
    let placings = [
        (base.gate, true, true),
        (None, true, true),
        (None, true, false),
        (Some(6 * HOUR), false, true),
    ];
    placings
        .into_iter()
        .flat_map(move |(gate, spread, reserve)| {
            [4, 0, 8].into_iter().flat_map(move |quarters| {
                let policy = Policy {
                    gate,
                    spread,
                    reserve,
                    ahead: quarters * HOUR / 4,
                    ..base
                };
                rules.into_iter().map(move |(rule, hours)| Policy {
                    rule,
                    look: hours * HOUR,
                    ..policy
                })
            })
        })
}

/// Values to try for [`Policy::give_way`].
pub(crate) const GIVE_WAY: [i64; 6] = [0, 2, 6, 20, 100, 1000];

/// Values to try for [`Policy::c2_first`].
const C2_FIRST: [i32; 3] = [0, -50, -200];

/// Further starting points, where one pool may finish before another.
pub(crate) fn ways_to_an_early_end() -> impl Iterator<Item = Policy> {
    let ways = GIVE_WAY.iter().map(|give_way| Policy {
        give_way: *give_way,
        ..Policy::default()
    });
    ways.chain(C2_FIRST.iter().map(|c2_first| Policy {
        c2_first: *c2_first,
        ..Policy::default()
    }))
}

/// Ways to begin with keys that come from a plan under `rule`.
pub(crate) fn keyed(rule: Policy) -> impl Iterator<Item = Policy> {
    let with = move |spread, gate, reserve| Policy {
        rule: Rule::Keyed,
        ahead: 0,
        spread,
        gate,
        burst: None,
        reserve,
        ..rule
    };
    [false, true].into_iter().flat_map(move |spread| {
        [Some(2 * HOUR), None].into_iter().flat_map(move |gate| {
            let reserves = [true, false].into_iter();
            reserves.map(move |reserve| with(spread, gate, reserve))
        })
    })
}
