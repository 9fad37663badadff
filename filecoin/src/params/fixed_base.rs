//! Many multiples of one curve point: windowed tables, mixed additions, batch normalisation, all
//! cores.

#![expect(
    clippy::indexing_slicing,
    reason = "window digits are bounded by the table width they were cut to"
)]

use std::{ops::AddAssign, sync::Mutex};

use blstrs::Scalar;
use ff::PrimeField;
use group::{Curve, Group};

const CHUNK: usize = 8192;
const SCALAR_BITS: usize = 256;

/// Called with the number of multiplications finished since the last call.
pub type Tick<'a> = &'a (dyn Fn(u64) + Sync);

pub struct FixedBase<P: Curve> {
    window: usize,
    rows: Vec<Vec<P::AffineRepr>>,
}

impl<P> FixedBase<P>
where
    P: Curve + Group<Scalar = Scalar> + Send + for<'a> AddAssign<&'a <P as Curve>::AffineRepr>,
    P::AffineRepr: Copy + Default + Send + Sync,
{
    /// Builds tables for `base`, with `window` bits per step. 12 suits G1 and 11 suits G2: the
    /// tables then fit in the second-level cache.
    pub fn new(base: P, window: usize) -> Self {
        let mut step = base;
        let rows = (0..SCALAR_BITS.div_ceil(window))
            .map(|_| {
                let mut multiples = Vec::with_capacity(1 << window);
                let mut current = P::identity();
                for _ in 0..1usize << window {
                    multiples.push(current);
                    current += step;
                }
                step = current;
                let mut affine = vec![P::AffineRepr::default(); multiples.len()];
                P::batch_normalize(&multiples, &mut affine);
                affine
            })
            .collect();
        Self { window, rows }
    }

    fn multiply(&self, scalar: &Scalar) -> P {
        let bytes = scalar.to_repr();
        let bytes: &[u8] = bytes.as_ref();
        let mut sum = P::identity();
        for (row_number, row) in self.rows.iter().enumerate() {
            let bit = row_number * self.window;
            let word = (0..4).rev().fold(0usize, |word, k| {
                (word << 8) | bytes.get(bit / 8 + k).map_or(0, |b| usize::from(*b))
            });
            let digit = (word >> (bit % 8)) & ((1 << self.window) - 1);
            if digit != 0 {
                sum += &row[digit];
            }
        }
        sum
    }

    /// The base times each scalar.
    pub fn multiples(&self, scalars: &[Scalar], tick: Tick<'_>) -> Vec<P::AffineRepr> {
        let mut out = vec![P::AffineRepr::default(); scalars.len()];
        let jobs = Mutex::new(scalars.chunks(CHUNK).zip(out.chunks_mut(CHUNK)));
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    while let Some((input, output)) =
                        jobs.lock().ok().and_then(|mut jobs| jobs.next())
                    {
                        let points: Vec<P> =
                            input.iter().map(|scalar| self.multiply(scalar)).collect();
                        P::batch_normalize(&points, output);
                        tick(u64::try_from(input.len()).unwrap_or_default());
                    }
                });
            }
        });
        out
    }
}
