//! Byte-pair merges learned from counted words.
//!
//! Invariant: the result is a function of the word counts alone. The trainer of the `tokenizers`
//! crate walks randomly seeded hash maps, and two runs can break a tie differently when a merge
//! spells a token that exists; here every order is that of sorted words and of pair ids.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

/// Two neighbouring tokens.
type Pair = (u32, u32);

/// A vocabulary in id order and the merges in the order they were learned.
pub(super) struct Merges {
    pub(super) tokens: Vec<String>,
    pub(super) pairs: Vec<Pair>,
}

struct Word {
    tokens: Vec<u32>,
    count: i64,
}

struct Trainer {
    words: Vec<Word>,
    counts: HashMap<Pair, i64>,
    /// Words that may contain a pair; may repeat a word or hold one that no longer does.
    places: HashMap<Pair, Vec<usize>>,
    queue: BinaryHeap<(i64, Reverse<Pair>)>,
}

/// Learns merges until there are `vocab_size` tokens or no pair occurs `min_count` times.
/// `tokens` is the vocabulary to begin with; every character of every word must be in it.
pub(super) fn learn(
    word_counts: &BTreeMap<String, u64>,
    mut tokens: Vec<String>,
    vocab_size: usize,
    min_count: u64,
) -> Merges {
    let mut ids: HashMap<String, u32> =
        (0u32..).zip(&tokens).map(|(i, t)| (t.clone(), i)).collect();
    let mut trainer = Trainer::new(word_counts, &ids);
    let mut pairs = Vec::new();
    while tokens.len() < vocab_size {
        let Some(pair) = trainer.most_frequent(min_count as i64) else { break };
        let spelled = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        let merged = *ids.entry(spelled.clone()).or_insert_with(|| {
            tokens.push(spelled);
            (tokens.len() - 1) as u32
        });
        trainer.merge(pair, merged);
        pairs.push(pair);
    }
    Merges { tokens, pairs }
}

impl Trainer {
    fn new(word_counts: &BTreeMap<String, u64>, ids: &HashMap<String, u32>) -> Self {
        let mut trainer = Self {
            words: Vec::with_capacity(word_counts.len()),
            counts: HashMap::new(),
            places: HashMap::new(),
            queue: BinaryHeap::new(),
        };
        for (index, (word, &count)) in word_counts.iter().enumerate() {
            let tokens = word.chars().filter_map(|c| ids.get(c.encode_utf8(&mut [0; 4])).copied());
            let word = Word { tokens: tokens.collect(), count: count as i64 };
            trainer.count_pairs(&word.tokens, word.count, Some(index));
            trainer.words.push(word);
        }
        trainer.queue = trainer.counts.iter().map(|(pair, n)| (*n, Reverse(*pair))).collect();
        trainer
    }

    /// The pair with the highest count, the lower ids first among equals.
    fn most_frequent(&mut self, min_count: i64) -> Option<Pair> {
        while let Some((count, Reverse(pair))) = self.queue.pop() {
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count {
                return (count >= min_count.max(1)).then_some(pair);
            }
            // Counts only fall while a pair waits in the queue, or the rise was queued too.
            if now > 0 && now < count {
                self.queue.push((now, Reverse(pair)));
            }
        }
        None
    }

    fn merge(&mut self, pair: Pair, merged: u32) {
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut touched = Vec::new();
        for place in places {
            let count = self.words[place].count;
            let before = std::mem::take(&mut self.words[place].tokens);
            let after = merge_word(&before, pair, merged);
            if after.len() == before.len() {
                self.words[place].tokens = before;
                continue;
            }
            self.count_pairs(&before, -count, None);
            self.count_pairs(&after, count, Some(place));
            touched.extend(after.windows(2).map(|w| (w[0], w[1])));
            self.words[place].tokens = after;
        }
        self.counts.remove(&pair);
        touched.sort_unstable();
        touched.dedup();
        for pair in touched {
            self.queue.push((self.counts[&pair], Reverse(pair)));
        }
    }

    /// Adds `count` to each pair of a word, and the word to the pair's places where one is given.
    fn count_pairs(&mut self, tokens: &[u32], count: i64, place: Option<usize>) {
        for window in tokens.windows(2) {
            let pair = (window[0], window[1]);
            *self.counts.entry(pair).or_insert(0) += count;
            if let Some(place) = place {
                let places = self.places.entry(pair).or_default();
                if places.last() != Some(&place) {
                    places.push(place);
                }
            }
        }
    }
}

fn merge_word(tokens: &[u32], pair: Pair, merged: u32) -> Vec<u32> {
    let mut result = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        if at + 1 < tokens.len() && (tokens[at], tokens[at + 1]) == pair {
            result.push(merged);
            at += 2;
        } else {
            result.push(tokens[at]);
            at += 1;
        }
    }
    result
}
