//! The three blank circuits of 2 KiB sectors, and two constraint systems that read a circuit
//! without proving it: one counts, one evaluates the QAP at a point.

#![expect(
    clippy::indexing_slicing,
    reason = "variables index arrays that were sized by a counting pass over the same circuit"
)]

use anyhow::{Context, Result};
use bellperson::{
    Circuit as _, ConstraintSystem, Index, LinearCombination, SynthesisError, Variable,
};
use blstrs::Scalar;
use ff::Field;
use filecoin_proofs::{
    DefaultPieceHasher, PoStType, SectorShape2KiB,
    constants::{
        WINDOW_POST_CHALLENGE_COUNT, WINDOW_POST_SECTOR_COUNT, WINNING_POST_CHALLENGE_COUNT,
        WINNING_POST_SECTOR_COUNT,
    },
    parameters::{public_params, window_post_public_params, winning_post_public_params},
    types::{PoRepConfig, PoStConfig, SectorSize},
};
use storage_proofs_core::{
    api_version::ApiVersion, compound_proof::CompoundProof, parameter_cache::CacheableParameters,
};
use storage_proofs_porep::stacked::{StackedCircuit, StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCircuit, FallbackPoStCompound};

use super::{SECTOR_BYTES, Which};

type Shape = SectorShape2KiB;
type Porep = StackedDrg<'static, Shape, DefaultPieceHasher>;
type PorepCircuit = StackedCircuit<Shape, DefaultPieceHasher>;
type PorepCompound = StackedCompound<Shape, DefaultPieceHasher>;
type Post = FallbackPoSt<'static, Shape>;
type PostCompound = FallbackPoStCompound<Shape>;

/// A circuit without witnesses. Synthesis consumes its circuit, so this makes a new one each time.
pub enum Circuit {
    Porep(<Porep as storage_proofs_core::proof::ProofScheme<'static>>::PublicParams),
    Post(<Post as storage_proofs_core::proof::ProofScheme<'static>>::PublicParams),
}

impl Circuit {
    pub fn blank(which: Which) -> Result<Self> {
        Ok(match which {
            Which::Porep => Self::Porep(public_params::<Shape>(&porep_config())?),
            Which::Window => Self::Post(window_post_public_params::<Shape>(&post_config(which)?)?),
            Which::Winning => {
                Self::Post(winning_post_public_params::<Shape>(&post_config(which)?)?)
            }
        })
    }

    pub fn synthesize<CS: ConstraintSystem<Scalar>>(
        &self,
        cs: &mut CS,
    ) -> Result<(), SynthesisError> {
        match self {
            Self::Porep(public) => {
                <PorepCompound as CompoundProof<'_, Porep, PorepCircuit>>::blank_circuit(public)
                    .synthesize(cs)
            }
            Self::Post(public) => <PostCompound as CompoundProof<
                '_,
                Post,
                FallbackPoStCircuit<Shape>,
            >>::blank_circuit(public)
            .synthesize(cs),
        }
    }
}

/// The name under which the proofs library looks for parameters of this circuit.
pub fn cache_identifier(which: Which) -> Result<String> {
    Ok(match Circuit::blank(which)? {
        Circuit::Porep(public) => {
            <PorepCompound as CacheableParameters<PorepCircuit, _>>::cache_identifier(&public)
        }
        Circuit::Post(public) => <PostCompound as CacheableParameters<
            FallbackPoStCircuit<Shape>,
            _,
        >>::cache_identifier(&public),
    })
}

fn porep_config() -> PoRepConfig {
    PoRepConfig::new_groth16(SECTOR_BYTES, [0; 32], ApiVersion::V1_1_0)
}

fn post_config(which: Which) -> Result<PoStConfig> {
    let window_sectors = || -> Result<usize> {
        let counts = WINDOW_POST_SECTOR_COUNT
            .read()
            .map_err(|_| anyhow::anyhow!("the table of partition sizes is poisoned"))?;
        counts
            .get(&SECTOR_BYTES)
            .copied()
            .context("no partition size for 2 KiB sectors")
    };
    let (typ, challenge_count, sector_count) = match which {
        Which::Winning => (
            PoStType::Winning,
            WINNING_POST_CHALLENGE_COUNT,
            WINNING_POST_SECTOR_COUNT,
        ),
        Which::Window | Which::Porep => (
            PoStType::Window,
            WINDOW_POST_CHALLENGE_COUNT,
            window_sectors()?,
        ),
    };
    let sector_size = SectorSize(SECTOR_BYTES);
    Ok(PoStConfig {
        sector_size,
        challenge_count,
        sector_count,
        typ,
        priority: true,
        api_version: ApiVersion::V1_1_0,
    })
}

/// Shared by both readers: names are ignored, variables are numbered in order of allocation.
macro_rules! reader {
    () => {
        type Root = Self;

        fn alloc<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
        where
            F: FnOnce() -> Result<Scalar, SynthesisError>,
            A: FnOnce() -> AR,
            AR: Into<String>,
        {
            self.aux_count += 1;
            Ok(Variable(Index::Aux(self.aux_count - 1)))
        }

        fn alloc_input<F, A, AR>(&mut self, _: A, _: F) -> Result<Variable, SynthesisError>
        where
            F: FnOnce() -> Result<Scalar, SynthesisError>,
            A: FnOnce() -> AR,
            AR: Into<String>,
        {
            self.input_count += 1;
            Ok(Variable(Index::Input(self.input_count - 1)))
        }

        fn push_namespace<NR: Into<String>, N: FnOnce() -> NR>(&mut self, _: N) {}

        fn pop_namespace(&mut self) {}

        fn get_root(&mut self) -> &mut Self {
            self
        }

        fn is_extensible() -> bool {
            false
        }
    };
}

/// Counts inputs (including the constant one), auxiliary variables and constraints.
pub struct Counter {
    pub input_count: usize,
    pub aux_count: usize,
    pub constraints: usize,
}

impl Counter {
    pub fn of(circuit: &Circuit) -> Result<Self> {
        let mut counter = Self {
            input_count: 1,
            aux_count: 0,
            constraints: 0,
        };
        circuit.synthesize(&mut counter)?;
        Ok(counter)
    }
}

impl ConstraintSystem<Scalar> for Counter {
    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, _: LA, _: LB, _: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        self.constraints += 1;
    }

    reader!();
}

/// Values of the polynomials A, B and C at the secret point, per variable.
pub struct Evaluator<'a> {
    lagrange: &'a [Scalar],
    constraints: usize,
    input_count: usize,
    aux_count: usize,
    pub inputs: [Vec<Scalar>; 3],
    pub aux: [Vec<Scalar>; 3],
}

impl<'a> Evaluator<'a> {
    /// `lagrange` holds L_i(tau) for each constraint i, including the input constraints at the end.
    pub fn run(circuit: &Circuit, count: &Counter, lagrange: &'a [Scalar]) -> Result<Self> {
        let zeros = |n: usize| std::array::from_fn(|_| vec![Scalar::ZERO; n]);
        let (inputs, aux) = (zeros(count.input_count), zeros(count.aux_count));
        let mut evaluator = Self {
            lagrange,
            constraints: 0,
            input_count: 1,
            aux_count: 0,
            inputs,
            aux,
        };
        circuit.synthesize(&mut evaluator)?;
        for input in 0..count.input_count {
            evaluator.add(
                0,
                &(LinearCombination::zero() + Variable(Index::Input(input))),
            );
            evaluator.constraints += 1;
        }
        anyhow::ensure!(
            evaluator.constraints == lagrange.len(),
            "the circuit changed between two passes"
        );
        Ok(evaluator)
    }

    fn add(&mut self, polynomial: usize, combination: &LinearCombination<Scalar>) {
        let at = self.lagrange[self.constraints];
        for (index, coefficient) in combination.iter_inputs() {
            self.inputs[polynomial][*index] += *coefficient * at;
        }
        for (index, coefficient) in combination.iter_aux() {
            self.aux[polynomial][*index] += *coefficient * at;
        }
    }
}

impl ConstraintSystem<Scalar> for Evaluator<'_> {
    fn enforce<A, AR, LA, LB, LC>(&mut self, _: A, a: LA, b: LB, c: LC)
    where
        A: FnOnce() -> AR,
        AR: Into<String>,
        LA: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LB: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
        LC: FnOnce(LinearCombination<Scalar>) -> LinearCombination<Scalar>,
    {
        self.add(0, &a(LinearCombination::zero()));
        self.add(1, &b(LinearCombination::zero()));
        self.add(2, &c(LinearCombination::zero()));
        self.constraints += 1;
    }

    reader!();
}
