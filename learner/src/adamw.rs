//! AdamW over plain slices: one pass per tensor, clipping fused in.
//!
//! Invariant: the result does not depend on the thread count, to the bit. Elements do not see each
//! other, and the one sum there is (the gradient norm) runs over chunks of a fixed size whose partial
//! sums are added in order. The arithmetic and the bias correction are PyTorch's.
//!
//! Weight decay is decoupled and spares what it should not shrink: norms, biases, and whatever else
//! has fewer than two dimensions ([`decays`]).

mod muon;
mod norm;
mod state;

pub use norm::gradient_norm;
pub use state::StateError;

use octet_policy::kernel::simd::widest;
use rayon::prelude::*;
use std::collections::BTreeSet;

/// Elements that one task works on.
const CHUNK: usize = 16 * 1024;

/// The constants of the update.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hyperparameters {
    /// How slowly the mean of the gradients forgets.
    pub beta1: f64,
    /// How slowly the mean of their squares forgets.
    pub beta2: f64,
    /// Keeps the division from exploding.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The global gradient norm above which gradients are scaled down; `None` never does.
    pub max_gradient_norm: Option<f64>,
    /// The momentum of Muon, which then updates the layers' matrices; `None` leaves all to AdamW.
    pub muon: Option<f64>,
}

/// A trainable tensor: its name and its shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The name, as in the checkpoint.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
}

/// One tensor's values and gradient, in the order of the specs.
#[derive(Debug)]
pub struct Parameter<'a> {
    /// What is updated.
    pub values: &'a mut [f32],
    /// `d loss / d value`.
    pub gradient: &'a [f32],
}

/// What an update did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// The global gradient norm, before clipping.
    pub gradient_norm: f64,
    /// What gradients were multiplied by; 1 when nothing was clipped.
    pub scale: f64,
}

/// The optimiser with its state.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    hyperparameters: Hyperparameters,
    steps: u64,
    tensors: Vec<Trained>,
    /// Those of all tensors, one after the other: what an allocator rounds up is then rounded up once.
    moments: Vec<f32>,
}

/// How one tensor is updated.
#[derive(Clone, Debug, PartialEq)]
struct Trained {
    spec: TensorSpec,
    decays: bool,
    muon: Option<f64>,
}

/// The running means of one tensor's gradients and of their squares. Where Muon updates, the first is its momentum and
/// the second is empty.
type Moments<Values> = [Values; 2];

/// Why an update could not be made. Nothing has changed then.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AdamWError {
    /// A constant out of its range.
    #[error("expected {name} {expected}, found {found}")]
    Hyperparameter {
        /// Which constant.
        name: &'static str,
        /// Its range.
        expected: &'static str,
        /// What was found.
        found: f64,
    },
    /// Two tensors of one name.
    #[error("expected each tensor once, found \"{name}\" twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Another number of tensors than the optimiser was made for.
    #[error("expected {expected} tensors, found {found}")]
    Count {
        /// As many as there were specs.
        expected: usize,
        /// As many as were given.
        found: usize,
    },
    /// A tensor of another size.
    #[error("expected {expected} {what} for tensor \"{name}\", found {found}")]
    Size {
        /// The tensor.
        name: String,
        /// Values or gradients.
        what: &'static str,
        /// Elements of the spec's shape.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// NaN or an infinity in a gradient.
    #[error(
        "expected a finite gradient, found {found} at element {element} of tensor \"{name}\"; the weights were left as they are"
    )]
    NotFinite {
        /// The tensor.
        name: String,
        /// The element.
        element: usize,
        /// What was found.
        found: f32,
    },
}

impl Default for Hyperparameters {
    /// What TRL and Hugging Face train with: no weight decay, gradient norm clipped at 1.
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            max_gradient_norm: Some(1.0),
            muon: None,
        }
    }
}

impl Hyperparameters {
    fn check(&self) -> Result<(), AdamWError> {
        let max_norm = self.max_gradient_norm.unwrap_or(1.0);
        let momentum = self.muon.unwrap_or(0.0);
        let rules = [
            ("beta1", "in [0, 1)", self.beta1, (0.0..1.0).contains(&self.beta1)),
            ("beta2", "in [0, 1)", self.beta2, (0.0..1.0).contains(&self.beta2)),
            ("epsilon", "above 0", self.epsilon, self.epsilon > 0.0),
            ("weight decay", "of at least 0", self.weight_decay, self.weight_decay >= 0.0),
            ("the gradient norm's limit", "above 0", max_norm, max_norm > 0.0),
            ("Muon's momentum", "in [0, 1)", momentum, (0.0..1.0).contains(&momentum)),
        ];
        match rules.into_iter().find(|(_, _, found, holds)| !(found.is_finite() && *holds)) {
            Some((name, expected, found, _)) => {
                Err(AdamWError::Hyperparameter { name, expected, found })
            }
            None => Ok(()),
        }
    }
}

/// Whether weight decay applies to a tensor: matrices yes; norms, biases and other vectors no.
pub fn decays(spec: &TensorSpec) -> bool {
    spec.shape.len() >= 2 && !spec.name.ends_with("bias") && !spec.name.contains("norm")
}

impl TensorSpec {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

impl AdamW {
    /// A fresh optimiser: all means are zero.
    pub fn new(
        hyperparameters: Hyperparameters,
        specs: Vec<TensorSpec>,
    ) -> Result<Self, AdamWError> {
        hyperparameters.check()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = specs.iter().find(|spec| !names.insert(&spec.name)) {
            return Err(AdamWError::Duplicate { name: twice.name.clone() });
        }
        let tensors: Vec<Trained> =
            specs.into_iter().map(|spec| Trained::new(spec, hyperparameters.muon)).collect();
        let moments = vec![0.0; tensors.iter().flat_map(Trained::moments).sum()];
        Ok(Self { hyperparameters, steps: 0, tensors, moments })
    }

    /// Updates made so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Bytes of the state: two f32 for each trainable parameter, one where Muon updates.
    pub fn state_bytes(&self) -> u64 {
        size_of_val(self.moments.as_slice()) as u64
    }

    /// Updates all tensors, given in the order of the specs. On an error nothing has changed.
    pub fn update(
        &mut self,
        parameters: &mut [Parameter<'_>],
        learning_rate: f64,
    ) -> Result<Update, AdamWError> {
        self.check(parameters, learning_rate)?;
        let gradient_norm = gradient_norm(parameters.iter().map(|parameter| parameter.gradient));
        if !gradient_norm.is_finite() {
            return Err(self.not_finite(parameters));
        }
        let scale = match self.hyperparameters.max_gradient_norm {
            Some(limit) => (limit / (gradient_norm + 1e-6)).min(1.0),
            None => 1.0,
        };
        self.steps += 1;
        let (hyperparameters, steps) = (self.hyperparameters, self.steps);
        // Side by side: the products of small matrices do not fill a machine one by one.
        self.by_tensor_mut().into_par_iter().zip(parameters).for_each(
            |((tensor, moments), parameter)| {
                let constants =
                    Constants::new(&hyperparameters, steps, learning_rate, scale, tensor.decays);
                tensor.update(parameter, moments, &constants);
            },
        );
        Ok(Update { gradient_norm, scale })
    }

    /// Each tensor with its moments.
    fn by_tensor(&self) -> impl Iterator<Item = (&Trained, Moments<&[f32]>)> {
        let mut rest = self.moments.as_slice();
        self.tensors.iter().map(move |tensor| {
            let moments = tensor.moments().map(|len| {
                let (own, others) = rest.split_at(len);
                rest = others;
                own
            });
            (tensor, moments)
        })
    }

    fn by_tensor_mut(&mut self) -> Vec<(&Trained, Moments<&mut [f32]>)> {
        let mut rest = self.moments.as_mut_slice();
        let each = self.tensors.iter().map(|tensor| {
            let moments = tensor.moments().map(|len| {
                let (own, others) = std::mem::take(&mut rest).split_at_mut(len);
                rest = others;
                own
            });
            (tensor, moments)
        });
        each.collect()
    }

    fn check(&self, parameters: &[Parameter<'_>], learning_rate: f64) -> Result<(), AdamWError> {
        if !(learning_rate.is_finite() && learning_rate >= 0.0) {
            return Err(AdamWError::Hyperparameter {
                name: "a learning rate",
                expected: "of at least 0",
                found: learning_rate,
            });
        }
        if parameters.len() != self.tensors.len() {
            return Err(AdamWError::Count {
                expected: self.tensors.len(),
                found: parameters.len(),
            });
        }
        for (tensor, parameter) in self.tensors.iter().zip(parameters) {
            let expected = tensor.spec.elements();
            for (what, found) in
                [("values", parameter.values.len()), ("gradients", parameter.gradient.len())]
            {
                if found != expected {
                    let name = tensor.spec.name.clone();
                    return Err(AdamWError::Size { name, what, expected, found });
                }
            }
        }
        Ok(())
    }

    fn not_finite(&self, parameters: &[Parameter<'_>]) -> AdamWError {
        let culprit = self.tensors.iter().zip(parameters).find_map(|(tensor, parameter)| {
            let element = parameter.gradient.iter().position(|value| !value.is_finite())?;
            Some((tensor.spec.name.clone(), element, parameter.gradient[element]))
        });
        let (name, element, found) = culprit.unwrap_or_default();
        AdamWError::NotFinite { name, element, found }
    }
}

/// The update's constants, rounded once.
struct Constants {
    learning_rate: f64,
    scale: f32,
    keep: f32,
    first_share: f32,
    second_keep: f32,
    second_share: f32,
    second_correction: f32,
    step_size: f32,
    epsilon: f32,
}

impl Constants {
    fn new(
        hyperparameters: &Hyperparameters,
        steps: u64,
        learning_rate: f64,
        scale: f64,
        decays: bool,
    ) -> Self {
        let Hyperparameters { beta1, beta2, epsilon, weight_decay, .. } = *hyperparameters;
        let decay = if decays { weight_decay } else { 0.0 };
        let first_correction = 1.0 - libm::pow(beta1, steps as f64);
        let second_correction = (1.0 - libm::pow(beta2, steps as f64)).sqrt();
        Self {
            learning_rate,
            scale: scale as f32,
            keep: (1.0 - learning_rate * decay) as f32,
            first_share: (1.0 - beta1) as f32,
            second_keep: beta2 as f32,
            second_share: (1.0 - beta2) as f32,
            second_correction: second_correction as f32,
            step_size: (learning_rate / first_correction) as f32,
            epsilon: epsilon as f32,
        }
    }
}

impl Trained {
    fn new(spec: TensorSpec, muon: Option<f64>) -> Self {
        let (decays, muon) = (decays(&spec), muon.filter(|_| muon::takes(&spec)));
        Self { spec, decays, muon }
    }

    /// How many there are of each.
    fn moments(&self) -> Moments<usize> {
        let elements = self.spec.elements();
        [elements, if self.muon.is_some() { 0 } else { elements }]
    }

    fn update(
        &self,
        parameter: &mut Parameter<'_>,
        [first, second]: Moments<&mut [f32]>,
        constants: &Constants,
    ) {
        if let Some(momentum) = self.muon {
            let shape = &self.spec.shape;
            return muon::update(shape, first, parameter, constants, momentum as f32);
        }
        let chunks = parameter
            .values
            .par_chunks_mut(CHUNK)
            .zip(parameter.gradient.par_chunks(CHUNK))
            .zip(first.par_chunks_mut(CHUNK))
            .zip(second.par_chunks_mut(CHUNK));
        chunks.for_each(|(((values, gradient), first), second)| {
            widest(|| update_chunk(constants, values, gradient, first, second));
        });
    }
}

#[inline(always)]
fn update_chunk(
    constants: &Constants,
    values: &mut [f32],
    gradient: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let moments = first.iter_mut().zip(second.iter_mut());
    for ((value, gradient), (first, second)) in values.iter_mut().zip(gradient).zip(moments) {
        let gradient = gradient * constants.scale;
        *first += (gradient - *first) * constants.first_share;
        *second = *second * constants.second_keep + gradient * gradient * constants.second_share;
        let deviation = second.sqrt() / constants.second_correction + constants.epsilon;
        *value = *value * constants.keep - constants.step_size * (*first / deviation);
    }
}

#[cfg(test)]
mod tests;
