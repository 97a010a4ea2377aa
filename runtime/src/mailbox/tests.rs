#![allow(clippy::unwrap_used)]
use super::*;

const SOON: Duration = Duration::from_millis(300);

#[derive(Debug)]
enum Command {
    Add(u32),
    Total(Reply<u32>),
    Forget(Reply<u32>),
    Keep(Reply<u32>),
}

async fn adder(mut mailbox: Mailbox<Command>) {
    let (mut total, mut kept) = (0, Vec::new());
    while let Some(command) = mailbox.receive().await {
        match command {
            Command::Add(number) => total += number,
            Command::Total(reply) => reply.send(total),
            Command::Forget(reply) => drop(reply),
            Command::Keep(reply) => kept.push(reply),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_is_answered_after_what_was_sent_before_it() {
    let (address, mailbox) = mailbox("adder", 4);
    tokio::spawn(adder(mailbox));
    for number in 1..=10 {
        address.send(Command::Add(number), SOON).await.unwrap();
    }
    assert_eq!(address.ask(SOON, Command::Total).await, Ok(55));
}

#[tokio::test(start_paused = true)]
async fn each_way_of_getting_no_answer_is_told_apart() {
    let (address, mailbox) = mailbox("adder", 4);
    let actor = tokio::spawn(adder(mailbox));

    let dropped = address.ask(SOON, Command::Forget).await.unwrap_err();
    assert_eq!(dropped.to_string(), "mailbox `adder` dropped the question: its actor has ended");
    let late = address.ask(SOON, Command::Keep).await.unwrap_err();
    assert_eq!(late, MailboxError::NoAnswer { mailbox: "adder".into(), waited: SOON });
    assert!(!late.is_consequence());

    actor.abort();
    address.closed().await;
    let closed = address.ask(SOON, Command::Total).await.unwrap_err();
    assert_eq!(closed.to_string(), "mailbox `adder` is closed: its actor has ended");
    assert!(closed.is_consequence() && dropped.is_consequence());
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_hands_the_message_back_and_says_how_long_it_waited() {
    let (address, mut mailbox) = mailbox("spool", 2);
    address.try_send(1).unwrap();
    address.send(2, SOON).await.unwrap();

    let back = address.send(3, SOON).await.unwrap_err();
    assert_eq!(back.message, 3);
    assert_eq!(
        back.why.to_string(),
        "mailbox `spool` was full (2 messages) for 300.0ms: its actor does not keep up or hangs"
    );
    assert_eq!(address.try_send(4).unwrap_err().message, 4);

    assert_eq!(mailbox.receive().await, Some(1));
    address.send(5, SOON).await.unwrap();
    assert_eq!(mailbox.receive().await, Some(2));
    assert_eq!(mailbox.receive().await, Some(5));
    assert_eq!(mailbox.try_receive(), None);
}

#[tokio::test]
async fn a_closed_mailbox_still_gives_what_it_held() {
    let (address, mut mailbox) = mailbox("spool", 4);
    address.try_send(1).unwrap();
    address.try_send(2).unwrap();
    mailbox.close();
    assert_eq!(address.try_send(3).unwrap_err().message, 3);
    assert_eq!(mailbox.receive().await, Some(1));
    assert_eq!(mailbox.receive().await, Some(2));
    assert_eq!(mailbox.receive().await, None);
}

#[tokio::test]
async fn a_gauge_reads_the_depth_and_keeps_nobody_alive() {
    let (address, mut mailbox) = mailbox("spool", 4);
    let gauge = address.gauge();
    address.try_send(1).unwrap();
    address.try_send(2).unwrap();
    assert_eq!((gauge.name(), gauge.depth(), gauge.capacity()), ("spool", 2, 4));
    mailbox.receive().await;
    assert_eq!(gauge.depth(), 1);

    drop(address);
    assert_eq!(mailbox.receive().await, Some(2));
    assert_eq!(mailbox.receive().await, None, "the gauge must not hold the mailbox open");
    assert_eq!(gauge.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answerer_sees_that_nobody_waits() {
    let (address, mut mailbox) = mailbox::<Reply<u32>>("adder", 1);
    assert!(address.ask(SOON, |reply| reply).await.is_err());
    assert!(mailbox.receive().await.unwrap().is_abandoned());
}
