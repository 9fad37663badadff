//! A Groth16 common reference string from a seeded generator. The bytes equal those of bellperson's
//! own generator for the same numbers, at about a tenth of the cost: Lagrange coefficients in
//! closed form, two passes over the circuit instead of storing its columns, fixed-base tables for
//! the multiples.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use bellperson::groth16::{Parameters, VerifyingKey};
use blstrs::{Bls12, G1Affine, G1Projective, G2Affine, G2Projective, Scalar};
use ff::{Field, PrimeField};
use group::{Curve, Group};
use rand_chacha::ChaCha20Rng;

use super::{
    circuits::{Circuit, Counter, Evaluator},
    fixed_base::FixedBase,
};

const G1_WINDOW: usize = 12;
const G2_WINDOW: usize = 11;
/// A multiplication in G2 costs about as much as three in G1; synthesising a constraint costs about
/// as much as four.
const G2_COST: u64 = 3;
const CONSTRAINT_COST: u64 = 4;

pub struct Crs(Parameters<Bls12>);

impl std::ops::Deref for Crs {
    type Target = Parameters<Bls12>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl Crs {
    pub fn write(&self, writer: impl Write) -> io::Result<()> {
        self.0.write(writer)
    }
}

/// The secret numbers, in the order in which bellperson draws them.
struct Toxic {
    g1: G1Projective,
    g2: G2Projective,
    alpha: Scalar,
    beta: Scalar,
    gamma: Scalar,
    delta: Scalar,
    tau: Scalar,
}

impl Toxic {
    fn draw(rng: &mut ChaCha20Rng) -> Self {
        let (g1, g2) = (
            G1Projective::random(&mut *rng),
            G2Projective::random(&mut *rng),
        );
        let [alpha, beta, gamma, delta, tau] = std::array::from_fn(|_| Scalar::random(&mut *rng));
        Self {
            g1,
            g2,
            alpha,
            beta,
            gamma,
            delta,
            tau,
        }
    }
}

/// `report(done, total)` is called often, from several threads, and last with `done == total`.
pub fn generate(
    circuit: &Circuit,
    rng: &mut ChaCha20Rng,
    report: &(dyn Fn(u64, u64) + Sync),
) -> Result<Crs> {
    let toxic = Toxic::draw(rng);
    let count = Counter::of(circuit)?;
    let rows = count.constraints + count.input_count;
    let domain = rows.next_power_of_two();
    let meter = Meter::new(rows, domain, &count, report)?;
    meter.tick(CONSTRAINT_COST * u64::try_from(rows)?);

    let vanishing = toxic.tau.pow_vartime([u64::try_from(domain)?]) - Scalar::ONE;
    let lagrange = lagrange_at(toxic.tau, vanishing, rows, domain)?;
    let Evaluator { inputs, aux, .. } = Evaluator::run(circuit, &count, &lagrange)?;
    drop(lagrange);
    meter.tick(CONSTRAINT_COST * u64::try_from(rows)?);

    let g1 = FixedBase::new(toxic.g1, G1_WINDOW);
    let g2 = FixedBase::new(toxic.g2, G2_WINDOW);
    let invert =
        |scalar: Scalar| Option::<Scalar>::from(scalar.invert()).context("a secret number is zero");
    let (over_gamma, over_delta) = (invert(toxic.gamma)?, invert(toxic.delta)?);
    let tick = |n| meter.tick(n);

    let ic = g1.multiples(&extended(&inputs, &toxic, over_gamma), &tick);
    let l_scalars = extended(&aux, &toxic, over_delta);
    ensure!(
        l_scalars.iter().all(|s| !bool::from(s.is_zero())),
        "the circuit has an unconstrained variable"
    );
    let l = g1.multiples(&l_scalars, &tick);
    drop(l_scalars);
    let [in_a, in_b, _] = &inputs;
    let [aux_a, aux_b, _] = &aux;
    let a = g1.multiples(&non_zero(in_a, aux_a), &tick);
    let b_scalars = non_zero(in_b, aux_b);
    let b_g1 = g1.multiples(&b_scalars, &tick);
    let b_g2 = g2.multiples(&b_scalars, &|n| meter.tick(n * G2_COST));
    drop((b_scalars, inputs, aux));
    let h = g1.multiples(
        &powers(vanishing * over_delta, toxic.tau, domain - 1),
        &tick,
    );
    meter.finish();

    let vk = verifying_key(&toxic, ic);
    Ok(Crs(Parameters {
        vk,
        h: Arc::new(h),
        l: Arc::new(l),
        a: Arc::new(a),
        b_g1: Arc::new(b_g1),
        b_g2: Arc::new(b_g2),
    }))
}

fn verifying_key(toxic: &Toxic, ic: Vec<G1Affine>) -> VerifyingKey<Bls12> {
    let in_g1 = |s: Scalar| -> G1Affine { (toxic.g1 * s).to_affine() };
    let in_g2 = |s: Scalar| -> G2Affine { (toxic.g2 * s).to_affine() };
    VerifyingKey {
        alpha_g1: in_g1(toxic.alpha),
        beta_g1: in_g1(toxic.beta),
        beta_g2: in_g2(toxic.beta),
        gamma_g2: in_g2(toxic.gamma),
        delta_g1: in_g1(toxic.delta),
        delta_g2: in_g2(toxic.delta),
        ic,
    }
}

/// L_i(tau) = omega^i (tau^m - 1) / (m (tau - omega^i)), for i below `rows`.
fn lagrange_at(tau: Scalar, vanishing: Scalar, rows: usize, domain: usize) -> Result<Vec<Scalar>> {
    let mut omega = Scalar::ROOT_OF_UNITY;
    for _ in domain.trailing_zeros()..Scalar::S {
        omega = omega.square();
    }
    let roots = powers(Scalar::ONE, omega, rows);
    let mut coefficients: Vec<Scalar> = roots.iter().map(|root| tau - root).collect();
    batch_invert(&mut coefficients)?;
    let m = Scalar::from(u64::try_from(domain)?);
    let scale = vanishing * Option::<Scalar>::from(m.invert()).context("the domain is empty")?;
    for (coefficient, root) in coefficients.iter_mut().zip(&roots) {
        *coefficient *= *root * scale;
    }
    Ok(coefficients)
}

/// Montgomery's trick: one inversion for the whole slice.
fn batch_invert(values: &mut [Scalar]) -> Result<()> {
    let mut product = Scalar::ONE;
    let mut before = Vec::with_capacity(values.len());
    for value in values.iter() {
        before.push(product);
        product *= value;
    }
    let mut inverse =
        Option::<Scalar>::from(product.invert()).context("the secret point is a root of unity")?;
    for (value, before) in values.iter_mut().zip(before).rev() {
        let next = inverse * *value;
        *value = inverse * before;
        inverse = next;
    }
    Ok(())
}

fn powers(first: Scalar, ratio: Scalar, n: usize) -> Vec<Scalar> {
    std::iter::successors(Some(first), |power| Some(*power * ratio))
        .take(n)
        .collect()
}

/// (beta A + alpha B + C) / divisor, per variable.
fn extended([a, b, c]: &[Vec<Scalar>; 3], toxic: &Toxic, inverse: Scalar) -> Vec<Scalar> {
    a.iter()
        .zip(b)
        .zip(c)
        .map(|((a, b), c)| (toxic.beta * a + toxic.alpha * b + c) * inverse)
        .collect()
}

/// Variables that a polynomial does not touch have no entry in the parameters.
fn non_zero(inputs: &[Scalar], aux: &[Scalar]) -> Vec<Scalar> {
    inputs
        .iter()
        .chain(aux)
        .filter(|s| !bool::from(s.is_zero()))
        .copied()
        .collect()
}

/// Reports finished work as `report(done, total)`.
struct Meter<'a> {
    done: AtomicU64,
    total: u64,
    report: &'a (dyn Fn(u64, u64) + Sync),
}

impl<'a> Meter<'a> {
    fn new(
        rows: usize,
        domain: usize,
        count: &Counter,
        report: &'a (dyn Fn(u64, u64) + Sync),
    ) -> Result<Self> {
        let (rows, domain, aux) = (
            u64::try_from(rows)?,
            u64::try_from(domain)?,
            u64::try_from(count.aux_count)?,
        );
        let total = 2 * CONSTRAINT_COST * rows + domain + 2 * aux + (1 + G2_COST) * aux / 2;
        Ok(Self {
            done: AtomicU64::new(0),
            total,
            report,
        })
    }

    fn tick(&self, units: u64) {
        let done = self.done.fetch_add(units, Ordering::Relaxed) + units;
        (self.report)(done.min(self.total), self.total);
    }

    fn finish(&self) {
        (self.report)(self.total, self.total);
    }
}
