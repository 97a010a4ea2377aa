//! Muon against the published arithmetic, computed in f64 by `make_muon_fixtures.py`.
#![allow(clippy::unwrap_used)]

use octet_learner::adamw::{AdamW, Hyperparameters, Parameter, TensorSpec};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    momentum: f64,
    learning_rate: f64,
    weight_decay: f64,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    shape: Vec<usize>,
    values: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    after: Vec<Vec<f64>>,
}

#[test]
fn updates_are_the_published_ones() {
    let fixture: Fixture = serde_json::from_str(include_str!("fixtures/muon.json")).unwrap();
    for case in fixture.cases {
        let hyperparameters = Hyperparameters {
            weight_decay: fixture.weight_decay,
            max_gradient_norm: None,
            muon: Some(fixture.momentum),
            ..Hyperparameters::default()
        };
        let name = "model.layers.0.mlp.up_proj.weight".to_owned();
        let specs = vec![TensorSpec { name, shape: case.shape.clone() }];
        let mut optimiser = AdamW::new(hyperparameters, specs).unwrap();
        let mut values = case.values;
        for (gradient, after) in case.gradients.iter().zip(&case.after) {
            let parameter = Parameter { values: &mut values, gradient };
            optimiser.update(&mut [parameter], fixture.learning_rate).unwrap();
            for (found, expected) in values.iter().zip(after) {
                let gap = (f64::from(*found) - expected).abs();
                assert!(gap < 2e-6, "{:?}: expected {expected}, found {found}", case.shape);
            }
        }
    }
}
