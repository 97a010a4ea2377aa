//! What a comparison runs, checked before the first run begins.
//!
//! Invariant: two recipes are compared only where all policies can be scored alike: same rows, reward and sampling.

use super::CompareArgs;
use super::held_out::Yardstick;
use crate::compute;
use crate::model;
use crate::recipe::Recipe;
use crate::track;
use crate::train::directory::RunDirectory;
use crate::train::setup::Setup;
use crate::train::summary::Summary;
use anyhow::{Context, Result, bail, ensure};
use octet_policy::policy::Policy;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// A comparison that can begin.
pub struct Plan {
    /// Where everything goes.
    pub out: PathBuf,
    /// The recipes by their names, in the order given.
    pub methods: Vec<String>,
    /// The seeds, in the order given.
    pub seeds: Vec<u64>,
    /// The runs: each recipe with each seed.
    pub entries: Vec<Entry>,
    /// What all policies are scored with.
    pub yardstick: Yardstick,
}

/// One run of a comparison.
pub struct Entry {
    /// The recipe's name.
    pub method: String,
    /// The run's seed.
    pub seed: u64,
    /// The recipe, with the seed.
    pub recipe: Recipe,
    /// Where the run is.
    pub directory: RunDirectory,
    /// How far it is.
    pub state: State,
    /// Digest of the weights that it begins with.
    pub start: String,
    /// Where these are.
    pub model: PathBuf,
}

/// How far a run is.
pub enum State {
    /// It was never begun.
    New,
    /// It was begun, and stopped.
    Begun,
    /// It is complete, with its final policy there.
    Complete {
        /// The policy's directory.
        policy: PathBuf,
    },
}

impl Plan {
    /// Loads and checks all recipes, with all seeds.
    ///
    /// # Errors
    /// Names the recipe, the key, what was expected and what was found.
    pub fn new(args: &CompareArgs) -> Result<Self> {
        check_arguments(args)?;
        let mut recipes: Vec<(&Path, Recipe)> = Vec::new();
        for file in &args.recipes {
            let recipe = Recipe::resolve(file, &args.set)?;
            if let Some((other, _)) = recipes.iter().find(|(_, r)| r.run.name == recipe.run.name) {
                bail!(
                    "{} and {}: expected another run.name in each recipe, since it names the runs, found \"{}\" in both",
                    other.display(),
                    file.display(),
                    recipe.run.name
                );
            }
            if let Some((other, first)) = recipes.first() {
                check_alike((other, first), (file, &recipe))?;
            }
            recipes.push((file, recipe));
        }
        let Some((_, first)) = recipes.first() else { bail!("expected a recipe, found none") };
        let yardstick = Yardstick::new(first, args.rows, args.seeds[0])?;
        let mut entries = Vec::new();
        for (file, recipe) in &recipes {
            let of_recipe = entries_of(args, recipe);
            entries.extend(of_recipe.with_context(|| file.display().to_string())?);
        }
        Ok(Self {
            out: args.out.clone(),
            methods: recipes.into_iter().map(|(_, recipe)| recipe.run.name).collect(),
            seeds: args.seeds.clone(),
            entries,
            yardstick,
        })
    }
}

fn check_arguments(args: &CompareArgs) -> Result<()> {
    let distinct: BTreeSet<u64> = args.seeds.iter().copied().collect();
    ensure!(
        !args.seeds.is_empty() && distinct.len() == args.seeds.len(),
        "--seeds: expected at least one seed, and each once, found {:?}",
        args.seeds
    );
    ensure!(args.rows != Some(0), "--rows: expected at least 1, found 0");
    for key in ["run.seed", "run.name"] {
        if let Some(set) = args.set.iter().find(|set| set.split('=').next() == Some(key)) {
            let instead = if key == "run.seed" { "--seeds" } else { "each recipe's own name" };
            bail!("--set {set}: expected {instead} to say it, since the runs differ in it");
        }
    }
    Ok(())
}

/// Refuses two recipes whose policies would be scored differently.
fn check_alike((first, one): (&Path, &Recipe), (file, other): (&Path, &Recipe)) -> Result<()> {
    let keys = [
        ("data.held_out", text(&one.data.held_out), text(&other.data.held_out)),
        ("reward.function", one.reward.function.clone(), other.reward.function.clone()),
        (
            "sampling.max_tokens",
            one.sampling.max_tokens.to_string(),
            other.sampling.max_tokens.to_string(),
        ),
        (
            "evaluation.temperature",
            one.evaluation.temperature.to_string(),
            other.evaluation.temperature.to_string(),
        ),
        (
            "evaluation.completions",
            one.evaluation.completions.to_string(),
            other.evaluation.completions.to_string(),
        ),
    ];
    match keys.into_iter().find(|(_, one, other)| one != other) {
        None => Ok(()),
        Some((key, one, other)) => bail!(
            "key `{key}`: expected the same in all recipes, since all policies are scored alike, found {one} in {} and \
             {other} in {}; give one with --set, or train apart and score with `octet eval`",
            first.display(),
            file.display()
        ),
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A recipe's runs.
fn entries_of(args: &CompareArgs, recipe: &Recipe) -> Result<Vec<Entry>> {
    let at =
        |seed: u64| RunDirectory::at(&args.out.join(format!("{}-seed-{seed}", recipe.run.name)));
    let mut seeded = recipe.clone();
    seeded.run.seed = args.seeds[0];
    let setup = Setup::new(seeded, &at(args.seeds[0]))?;
    let mut basis = setup.basis;
    let mut entries = Vec::new();
    for &seed in &args.seeds {
        let directory = at(seed);
        basis.reseed(seed)?;
        let identity = basis.identity(&directory);
        // What is wrong with tracking is said now, too.
        track::targets(&basis.recipe.tracking, &directory)?;
        let state = state(&directory, directory.begun(&identity)?)?;
        entries.push(Entry {
            method: recipe.run.name.clone(),
            seed,
            recipe: basis.recipe.clone(),
            directory,
            state,
            start: basis.weights.clone(),
            model: basis.model.clone(),
        });
    }
    Ok(entries)
}

fn state(directory: &RunDirectory, begun: bool) -> Result<State> {
    if !begun {
        return Ok(State::New);
    }
    let Some(summary) = directory.read::<Summary>("summary.json")? else {
        return Ok(State::Begun);
    };
    // Where it was written is not where it is, if the directory was moved.
    let name = Path::new(&summary.policy).file_name().map(Path::new).unwrap_or(Path::new(""));
    let policy = directory.join("checkpoints").join(name);
    ensure!(
        policy.is_dir(),
        "{}: expected the final policy of a complete run at {}, found none; remove the directory to train it again",
        directory.path().display(),
        policy.display()
    );
    Ok(State::Complete { policy })
}

impl Entry {
    /// Loads a policy to be scored, where the recipe computes.
    ///
    /// # Errors
    /// It cannot be loaded.
    pub fn load(&self, policy: &Path) -> Result<Policy> {
        let keys = &self.recipe.model;
        let dtype = compute::dtype(&keys.dtype, &keys.device)?;
        Ok(Policy::load(&model::locate(policy)?, dtype, &compute::open(&keys.device)?)?)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, seed {}", self.method, self.seed)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Begun => "stopped before, goes on",
            Self::Complete { .. } => "complete already",
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (recipes, seeds) = (self.methods.len(), self.seeds.len());
        write!(f, "octet compare  {recipes} recipes × {seeds} seeds → {}", self.out.display())?;
        for entry in &self.entries {
            let learner = &entry.recipe.learner;
            write!(
                f,
                "\n  {:<28} {:<8} learning rate {:e}, {}",
                entry.to_string(),
                learner.objective.name(),
                learner.learning_rate,
                entry.state
            )?;
        }
        Ok(())
    }
}
