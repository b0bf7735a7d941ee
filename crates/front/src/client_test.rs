//! Routing: who gets an event, who does not, and what a full or closed client says.

use hotspare_batch::FinishReason;
use tokio::sync::mpsc;

use super::*;
use crate::target::{Arrival, LossCause};
use crate::testing::{event, hello};

fn client(max_num_unsent_requests: usize) -> EngineClient {
    let liveness = crate::testing::config().liveness();
    EngineClient::new(hello(), max_num_unsent_requests, liveness)
}

fn request(id: u64, attempt: u32) -> Generate {
    Generate {
        request_id: RequestId(id),
        attempt,
        ids: vec![1],
        num_delivered: 0,
        sampling: hotspare_batch::SamplingParams::greedy(),
        stop: hotspare_batch::StopParams::default(),
        priority: 0,
        deadline_ms: None,
        block_hash_keys: Vec::new(),
        prefill_only: false,
    }
}

fn step(id: u64, attempt: u32, token: u32, finish: Option<FinishReason>) -> EngineMessage {
    let event = SequenceEvent {
        request_id: RequestId(id),
        attempt,
        finish,
        ..event(0, &[token])
    };
    let (step, events) = (9, vec![event]);
    EngineMessage::Step { step, events }
}

fn tokens(arrivals: &mut mpsc::Receiver<Arrival>) -> Vec<u32> {
    let mut tokens = Vec::new();
    while let Ok(arrival) = arrivals.try_recv() {
        if let ArrivalKind::Event(event) = arrival.kind {
            tokens.extend(event.token_ids);
        }
    }
    tokens
}

async fn mail(client: &EngineClient) -> Vec<FrontMessage> {
    let mut out = VecDeque::new();
    client.take_mail(&mut out).await;
    out.into()
}

#[tokio::test]
async fn tokens_of_older_attempts_are_dropped() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(8);
    client.submit(request(5, 2), Feed::new(0, sender)).unwrap();
    client.on_message(step(5, 1, 100, None));
    client.on_message(step(5, 2, 101, None));
    client.on_message(step(5, 3, 102, None));
    client.on_message(step(6, 2, 103, None));
    let late = EngineMessage::Rejected {
        request_id: RequestId(5),
        attempt: 1,
        reason: RejectReason::Draining,
    };
    client.on_message(late);
    assert_eq!(client.num_sequences(), 1);
    client.on_message(step(5, 2, 104, Some(FinishReason::Length)));
    client.on_message(step(5, 2, 105, None));
    assert_eq!(tokens(&mut arrivals), [101, 104]);
    assert_eq!(client.num_sequences(), 0);
    assert_eq!(client.last_step(), 9);
}

#[tokio::test]
async fn a_cancelled_sequence_is_told_once_and_gets_nothing_more() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(8);
    client.submit(request(5, 0), Feed::new(0, sender)).unwrap();
    let request_id = RequestId(5);
    client.cancel(request_id);
    client.cancel(request_id);
    client.on_message(step(5, 0, 100, None));
    client.on_message(step(5, 0, 101, Some(FinishReason::Cancelled)));
    let mail = mail(&client).await;
    assert_eq!(mail.len(), 2, "{mail:?}");
    assert!(matches!(&mail[0], FrontMessage::Generate(_)));
    assert_eq!(mail[1], FrontMessage::Cancel { request_id });
    assert_eq!(tokens(&mut arrivals), [0u32; 0]);
    assert!(arrivals.recv().await.is_none(), "nothing holds the feed");
}

#[tokio::test]
async fn an_engine_that_sends_more_than_it_may_is_stopped() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(2);
    client.submit(request(5, 0), Feed::new(0, sender)).unwrap();
    for token in 0..4 {
        client.on_message(step(5, 0, token, None));
    }
    let request_id = RequestId(5);
    assert_eq!(
        mail(&client).await[1..],
        [FrontMessage::Cancel { request_id }]
    );
    assert_eq!(tokens(&mut arrivals), [0, 1]);
    assert_eq!(client.num_sequences(), 0);
}

#[tokio::test]
async fn requests_that_wait_for_the_socket_are_bounded() {
    let client = client(2);
    let (sender, _arrivals) = mpsc::channel(8);
    let feed = Feed::new(0, sender);
    client.submit(request(1, 0), feed.clone()).unwrap();
    client.submit(request(2, 0), feed.clone()).unwrap();
    let full = SubmitError::Full {
        max_num_unsent_requests: 2,
    };
    assert_eq!(client.submit(request(3, 0), feed.clone()), Err(full));
    assert_eq!(client.num_sequences(), 2);
    client.cancel(RequestId(1));
    assert_eq!(mail(&client).await.len(), 3);
    client.submit(request(4, 0), feed).unwrap();
}

#[tokio::test]
async fn a_closed_client_tells_everyone_and_takes_nothing() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(8);
    let feed = Feed::new(7, sender);
    client.submit(request(1, 0), feed.clone()).unwrap();
    let loss = Loss {
        message: "gone".to_owned(),
        cause: LossCause::Own,
    };
    client.close(&loss);
    assert_eq!(client.submit(request(2, 0), feed), Err(SubmitError::Gone));
    let arrival = arrivals.recv().await.expect("the loss is told");
    assert_eq!(arrival.index, 7);
    assert!(matches!(arrival.kind, ArrivalKind::Lost(told) if told == loss));
    assert!(arrivals.recv().await.is_none(), "nothing holds the feed");
}

#[tokio::test]
async fn a_request_that_has_no_frame_is_refused() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(8);
    client.submit(request(1, 0), Feed::new(0, sender)).unwrap();
    let error = LinkError::Encode("too odd".to_owned());
    client.on_refused(FrontMessage::Generate(Box::new(request(1, 0))), &error);
    let arrival = arrivals.recv().await.expect("the refusal is told");
    let ArrivalKind::Rejected(RejectReason::Impossible(why)) = arrival.kind else {
        panic!("a refusal was due: {arrival:?}");
    };
    assert!(why.contains("too odd"), "{why}");
}

#[test]
fn the_last_words_of_an_engine_are_passed_on() {
    let message = "out of luck".to_owned();
    let fatal = client(1).on_message(EngineMessage::Fatal { message });
    assert_eq!(fatal.as_deref(), Some("out of luck"));
}

#[tokio::test]
async fn the_first_request_of_a_client_ends_what_is_read_along() {
    let client = client(8);
    let (sender, mut arrivals) = mpsc::channel(8);
    let shadow = |number| request(RequestId::FIRST_SHADOW.0 + number, 0);
    client
        .submit(shadow(0), Feed::new(0, sender.clone()))
        .unwrap();
    assert_eq!(mail(&client).await.len(), 1);
    client
        .submit(request(5, 0), Feed::new(1, sender.clone()))
        .unwrap();
    let arrival = arrivals.recv().await.expect("it is told");
    assert_eq!(arrival.index, 0);
    assert!(
        matches!(arrival.kind, ArrivalKind::Lost(loss) if loss.cause == LossCause::Outside),
        "which accuses nobody"
    );
    let mail = mail(&client).await;
    let request_id = RequestId::FIRST_SHADOW;
    assert_eq!(mail[0], FrontMessage::Cancel { request_id });
    assert!(matches!(&mail[1], FrontMessage::Generate(r) if r.request_id == RequestId(5)));
    let refused = client.submit(shadow(1), Feed::new(0, sender));
    assert_eq!(refused, Err(SubmitError::Gone));
    assert_eq!(client.num_sequences(), 1);
}
