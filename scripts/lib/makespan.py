"""A lower bound of the makespan for the instances of ../shared/bench, beside the bench's own.

The bench's bound takes every sector of a fleet with several sizes for one of the smallest; this one counts what a large
sector takes of a PC1 machine, and keeps orders that are bound to a pool in it. Per moment of release, a linear program asks
whether the work released from then on fits: PC1 into the slots of each machine between its windows, PC2 and C2 into the time
of the GPUs. Everything else (transfers, scratch while layers wait, gas, which order a step belongs to) is left out.
"""
from ortools.linear_solver import pywraplp
from sealbench.bounds import latency

# Release times examined. Each gives a valid bound; more make it tighter, but slower to compute.
MOMENTS = 16


def makespan_bound(instance):
    """Hours."""
    tails = {size: latency(instance, instance.machines, size) for size in instance.types}
    to_gpu = min(p1 + move for p1, move, _ in tails.values())
    from_p1 = min(move + rest for _, move, rest in tails.values())
    sectors = sorted((o.release + i * o.step, o.pool, o.typ) for o in instance.orders for i in range(o.n))
    bound = 0
    for release in sorted({sectors[len(sectors) * k // MOMENTS][0] for k in range(MOMENTS)}):
        wanted = {}
        for _, pool, size in (s for s in sectors if s[0] >= release):
            wanted[pool, size] = wanted.get((pool, size), 0) + 1
        p1 = least_end(lambda end: p1_fits(instance, wanted, release, end), release)
        gpu = least_end(lambda end: gpu_fits(instance, wanted, release + to_gpu, end), release + to_gpu)
        bound = max(bound, instance.include(p1 + from_p1), instance.include(gpu + instance.params["msg_s"]))
    return bound / 3600


def least_end(fits, begin):
    """No end before this one fits, to the minute."""
    not_yet, enough = begin, begin + 3600
    while not fits(enough):
        not_yet, enough = enough, begin + 2 * (enough - begin)
    while enough - not_yet > 60:
        middle = (not_yet + enough) // 2
        not_yet, enough = (not_yet, middle) if fits(middle) else (middle, enough)
    return not_yet


def spans(machine, begin, end):
    """Seconds of each piece of [begin, end) between the machine's windows."""
    for start, back in sorted(machine.down) + [(end, end)]:
        if min(start, end) > begin:
            yield min(start, end) - begin
        begin = max(begin, back)


def p1_fits(instance, wanted, begin, end):
    """A sector `f` times as large takes `f` slots for `f` times as long: f * f turns of those that a machine has in whole numbers."""
    program, done = pywraplp.Solver.CreateSolver("GLOP"), {}
    for machine in instance.machines:
        sizes = [size for size in instance.types if machine.can(size, "p1")]
        if not sizes:
            continue
        small = min(sizes, key=lambda size: machine.dur[size]["p1"])
        kind, length = instance.types[small], machine.dur[small]["p1"]
        slots = min(machine.cores // kind["need"]["p1"]["cores"], machine.ram // kind["need"]["p1"]["ram"],
                    machine.scratch // kind["scratch_full"])
        turns = program.Constraint(0, slots * sum(span // length for span in spans(machine, begin, end)))
        for size in sizes:
            factor = machine.dur[size]["p1"] // length
            assert all(instance.types[size][part] >= factor * kind[part] for part in ("scratch_full", "gib"))
            assert instance.types[size]["need"]["p1"]["ram"] >= factor * kind["need"]["p1"]["ram"]
            whole = slots // factor * sum(span // (factor * length) for span in spans(machine, begin, end))
            number = program.NumVar(0, whole, "")
            turns.SetCoefficient(number, factor * factor)
            done.setdefault((machine.pool, size), []).append(number)
    return all_done(program, instance, wanted, [done])


def gpu_fits(instance, wanted, begin, end):
    program, done = pywraplp.Solver.CreateSolver("GLOP"), {"p2": {}, "c2": {}}
    for machine in instance.machines:
        time = program.Constraint(0, machine.gpus * sum(spans(machine, begin, end)))
        for size in instance.types:
            for step in done:
                if machine.gpus and machine.can(size, step):
                    number = program.NumVar(0, program.infinity(), "")
                    time.SetCoefficient(number, machine.dur[size][step])
                    done[step].setdefault((machine.pool, size), []).append(number)
    return all_done(program, instance, wanted, done.values())


def all_done(program, instance, wanted, steps):
    """Whether every step can be done of all that is wanted; what is wanted of pool -1 goes to any, whole or in part."""
    for size in instance.types:
        shares = [program.NumVar(0, program.infinity(), "") for _ in instance.pools]
        any_pool = program.Constraint(wanted.get((-1, size), 0), program.infinity())
        for share in shares:
            any_pool.SetCoefficient(share, 1)
        for done in steps:
            for pool, share in enumerate(shares):
                here = program.Constraint(wanted.get((pool, size), 0), program.infinity())
                here.SetCoefficient(share, -1)
                for number in done.get((pool, size), []):
                    here.SetCoefficient(number, 1)
    return program.Solve() == pywraplp.Solver.OPTIMAL
