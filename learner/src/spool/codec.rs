//! Groups to rows and back.
//!
//! Invariant: a row becomes a group only if it passes the group's own checks and its digest, so a
//! damaged row is an error and never a wrong number.

use super::integer;
use crate::group::{Finish, GroupParts, ScoredCompletion, ScoredGroup};
use octet_proto::GroupIndex;
use rusqlite::{Connection, Row, params};

/// A group's rows, not yet checked.
pub(super) struct StoredGroup {
    parts: GroupParts,
    digest: String,
    fault: Option<String>,
}

/// About how many bytes a group takes in the file.
pub(super) fn bytes(group: &ScoredGroup) -> u64 {
    let texts = |completion: &ScoredCompletion| completion.verdict.len() + completion.detail.len();
    let fixed = 64 * (1 + group.completions.len());
    let tokens = 4 * group.prompt_tokens.len() + 8 * group.completion_tokens();
    let text = group.example_json.len() + group.completions.iter().map(texts).sum::<usize>();
    (fixed + tokens + text) as u64
}

pub(super) fn insert(connection: &Connection, group: &ScoredGroup) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO groups VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?
        .execute(params![
            integer(group.group.get()),
            integer(group.lease_epoch.get()),
            integer(group.policy_version.get()),
            integer(group.reward_revision.get()),
            group.worker,
            group.example_json,
            words(&group.prompt_tokens),
            digest(group),
        ])?;
    let mut statement = connection
        .prepare_cached("INSERT INTO completions VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
    for completion in &group.completions {
        statement.execute(params![
            integer(group.group.get()),
            completion.sample,
            finish_name(completion.finish),
            completion.reward,
            completion.verdict,
            completion.detail,
            words(&completion.tokens),
            floats(&completion.logprobs),
        ])?;
    }
    Ok(())
}

pub(super) fn read(connection: &Connection, index: GroupIndex) -> rusqlite::Result<StoredGroup> {
    let mut stored = connection
        .prepare_cached(
            "SELECT lease_epoch, policy_version, reward_revision, worker, example, prompt_tokens, \
             digest FROM groups WHERE group_index = ?1",
        )?
        .query_row([integer(index.get())], |row| StoredGroup::from_row(index, row))?;
    let mut statement = connection.prepare_cached(
        "SELECT sample, finish, reward, verdict, detail, tokens, logprobs FROM completions \
         WHERE group_index = ?1 ORDER BY sample",
    )?;
    let mut rows = statement.query([integer(index.get())])?;
    while let Some(row) = rows.next()? {
        stored.add(row)?;
    }
    Ok(stored)
}

impl StoredGroup {
    fn from_row(group: GroupIndex, row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |column: usize| row.get::<_, i64>(column).map(|value| value as u64);
        let (prompt_tokens, fault) = decode(&row.get::<_, Vec<u8>>(5)?, u32::from_le_bytes);
        let parts = GroupParts {
            group,
            lease_epoch: number(0)?.into(),
            policy_version: number(1)?.into(),
            reward_revision: number(2)?.into(),
            worker: row.get(3)?,
            example_json: row.get(4)?,
            prompt_tokens,
            completions: Vec::new(),
        };
        Ok(Self { parts, digest: row.get(6)?, fault })
    }

    fn add(&mut self, row: &Row<'_>) -> rusqlite::Result<()> {
        let finish: String = row.get(1)?;
        let (tokens, bad_tokens) = decode(&row.get::<_, Vec<u8>>(5)?, u32::from_le_bytes);
        let (logprobs, bad_logprobs) = decode(&row.get::<_, Vec<u8>>(6)?, f32::from_le_bytes);
        let (finish, bad_finish) = match finish.as_str() {
            "stop" => (Finish::Stop, None),
            "length" => (Finish::Length, None),
            other => (Finish::Stop, Some(format!("an unknown finish reason '{other}'"))),
        };
        self.fault = self.fault.take().or(bad_tokens).or(bad_logprobs).or(bad_finish);
        self.parts.completions.push(ScoredCompletion {
            sample: row.get(0)?,
            tokens,
            logprobs,
            finish,
            reward: row.get(2)?,
            verdict: row.get(3)?,
            detail: row.get(4)?,
        });
        Ok(())
    }

    /// The checked group, or what is wrong with its rows.
    pub fn into_group(self) -> Result<ScoredGroup, String> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let group = ScoredGroup::new(self.parts).map_err(|error| error.fault.to_string())?;
        let found = digest(&group);
        if found != self.digest {
            return Err(format!("expected digest {}, found {found}", self.digest));
        }
        Ok(group)
    }
}

fn finish_name(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn decode<T>(bytes: &[u8], value: impl Fn([u8; 4]) -> T) -> (Vec<T>, Option<String>) {
    let (words, rest) = bytes.as_chunks::<4>();
    let fault = (!rest.is_empty()).then(|| format!("a blob of {} bytes", bytes.len()));
    (words.iter().map(|word| value(*word)).collect(), fault)
}

/// BLAKE3 over all fields; those of variable length are preceded by their length.
fn digest(group: &ScoredGroup) -> String {
    let mut hasher = blake3::Hasher::new();
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for number in [
        group.group.get(),
        group.lease_epoch.get(),
        group.policy_version.get(),
        group.reward_revision.get(),
        group.completions.len() as u64,
    ] {
        field(&number.to_le_bytes());
    }
    field(group.worker.as_bytes());
    field(group.example_json.as_bytes());
    field(&words(&group.prompt_tokens));
    for completion in &group.completions {
        field(finish_name(completion.finish).as_bytes());
        field(&completion.reward.to_le_bytes());
        field(completion.verdict.as_bytes());
        field(completion.detail.as_bytes());
        field(&words(&completion.tokens));
        field(&floats(&completion.logprobs));
    }
    hasher.finalize().to_hex().to_string()
}
