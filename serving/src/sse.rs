//! A streamed answer as server-sent events.
//!
//! Invariant: a stream ends with `[DONE]` and nothing after it, or with an error object and no `[DONE]`; while
//! nothing is new a comment comes every [`KEEP_ALIVE`], so that nobody on the way takes the connection for dead.

use crate::answering::Answering;
use crate::choice::News;
use crate::error::Refusal;
use bytes::Bytes;
use futures::Stream;
use serde_json::Value;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::timeout;

/// The longest silence.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

struct Telling {
    answering: Answering,
    first: Option<Vec<(usize, News)>>,
    /// Calls told of each choice.
    called: Vec<usize>,
    over: bool,
}

/// The events; `first` is what was new before the stream began.
pub(crate) fn events(
    answering: Answering,
    first: Vec<(usize, News)>,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let called = vec![0; answering.choices.len()];
    let telling = Telling { answering, first: Some(first), called, over: false };
    futures::stream::unfold(telling, |mut telling| async move {
        if telling.over {
            return None;
        }
        let text = telling.next().await;
        Some((Ok(Bytes::from(text)), telling))
    })
}

impl Telling {
    async fn next(&mut self) -> String {
        let mut text = String::new();
        let news = match self.first.take() {
            Some(first) => {
                for index in 0..self.called.len() {
                    event(&mut text, &self.answering.head.first(index));
                }
                Ok(Some(first))
            }
            None => match timeout(KEEP_ALIVE, self.answering.next()).await {
                Ok(news) => news,
                Err(_quiet) => return ": still at it\n\n".to_owned(),
            },
        };
        let told = match news {
            Ok(Some(news)) => self.tell(news, &mut text),
            Ok(None) => {
                self.over = true;
                if self.answering.head.usage {
                    event(&mut text, &self.answering.head.last(self.answering.usage()));
                }
                text.push_str("data: [DONE]\n\n");
                Ok(())
            }
            Err(refusal) => Err(refusal),
        };
        if let Err(refusal) = told {
            self.over = true;
            event(&mut text, &refusal.json());
        }
        text
    }

    fn tell(&mut self, news: Vec<(usize, News)>, text: &mut String) -> Result<(), Refusal> {
        for (index, news) in news {
            let Answering { head, loaded, .. } = &self.answering;
            let pieces = head.pieces(loaded, index, news, &mut self.called[index]);
            let pieces = pieces.map_err(|error| Refusal::Failed(error.to_string()))?;
            pieces.iter().for_each(|piece| event(text, piece));
        }
        Ok(())
    }
}

/// JSON has no line break outside of its strings, and in them they are escaped.
fn event(text: &mut String, value: &Value) {
    text.push_str("data: ");
    text.push_str(&value.to_string());
    text.push_str("\n\n");
}
