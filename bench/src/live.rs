//! A fleet that learns of its orders one after another, as a dispatcher does.

use sealyard_planner::{Aim, Budget, Effort, Fleet, Order, Policy, Secs, World, improve};

/// Sectors per group: the search then has a few hundred groups to arrange.
#[must_use]
fn group_size(sectors: usize) -> u32 {
    u32::try_from(sectors / 300)
        .unwrap_or(u32::MAX)
        .clamp(1, 64)
}

/// Simulates the fleet through all orders. Whenever an order becomes known, a search rearranges the
/// sectors that have not begun. Each search gets its share of `budget`.
pub fn live<'f>(
    fleet: &'f Fleet,
    orders: &[Order],
    policy: Policy,
    aim: Aim,
    seed: u64,
    budget: &mut dyn Budget,
) -> World<'f> {
    let mut world = World::new(fleet, policy);
    let sectors: usize = orders
        .iter()
        .filter_map(|o| usize::try_from(o.n).ok())
        .sum();
    let mut ids: Vec<&Order> = orders.iter().collect();
    ids.sort_by_key(|o| o.known);
    let size = if budget.effort() != Effort::OneRule {
        group_size(sectors)
    } else {
        u32::MAX
    };
    let mut round = seed;
    let mut from = 0;
    while let Some(first) = ids.get(from) {
        let at: Secs = first.known;
        world.run_until(at);
        while let Some(order) = ids.get(from).filter(|o| o.known == at) {
            world.add_order_in_groups((*order).clone(), size);
            from += 1;
        }
        if budget.effort() != Effort::OneRule {
            budget.begin();
            round = round.wrapping_add(1);
            if let Some(found) = improve(&world, aim, round, budget) {
                world.adopt(&found);
                if from == ids.len() && found.world.is_done() {
                    // No more orders will come, so the search has already simulated the rest.
                    return found.world;
                }
            }
        }
    }
    world.run();
    world
}
