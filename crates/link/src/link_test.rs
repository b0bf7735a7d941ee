//! The link against streams that are cut, garbled, oversized, or split anywhere.

use hotspare_batch::{
    FinishReason, Generate, PromptReport, RejectReason, RequestId, RowError, SamplingParams,
    SequenceEvent, StopParams, TokenLogprobs,
};
use proptest::prelude::*;

use crate::frame::{FRAME_VERSION, HEADER_BYTES, MAGIC};
use crate::*;

const MAX_BYTES: usize = 1 << 16;

fn header(magic: u16, version: u16, num_bytes: u32) -> Vec<u8> {
    let mut header = magic.to_le_bytes().to_vec();
    header.extend(version.to_le_bytes());
    header.extend(num_bytes.to_le_bytes());
    header
}

fn frame_of(payload: &[u8]) -> Vec<u8> {
    let mut frame = header(MAGIC, FRAME_VERSION, payload.len() as u32);
    frame.extend(payload);
    frame
}

fn decode_one<M: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<Option<M>, LinkError> {
    let mut decoder = FrameDecoder::new(MAX_BYTES);
    decoder.push(bytes);
    decoder.next_message()
}

fn any_generate() -> impl Strategy<Value = FrontMessage> {
    let ids = prop::collection::vec(any::<u32>(), 1..40);
    let bias = prop::collection::vec((any::<u32>(), -100.0f32..100.0), 0..4);
    let salt = prop::collection::vec(any::<u64>(), 0..3);
    (any::<u64>(), ids, bias, salt, any::<(u64, i32)>()).prop_map(
        |(id, ids, logit_bias, block_hash_keys, (seed, priority))| {
            FrontMessage::Generate(Box::new(Generate {
                request_id: RequestId(id),
                attempt: (id % 5) as u32,
                num_delivered: ids.len() as u32 / 2,
                ids,
                sampling: SamplingParams {
                    logit_bias,
                    seed,
                    num_logprobs: (seed % 2 == 0).then_some(3),
                    ..SamplingParams::default()
                },
                stop: StopParams::default(),
                priority,
                deadline_ms: (id % 2 == 0).then_some(id),
                block_hash_keys,
                prefill_only: id % 3 == 0,
            }))
        },
    )
}

fn any_front_message() -> impl Strategy<Value = FrontMessage> {
    prop_oneof![
        any_generate(),
        any::<(u16, u16)>().prop_map(|(min, max)| FrontMessage::Hello {
            protocol: ProtocolRange { min, max }
        }),
        any::<u64>().prop_map(|id| FrontMessage::Cancel {
            request_id: RequestId(id)
        }),
        Just(FrontMessage::Drain),
        any::<u64>().prop_map(|nonce| FrontMessage::Ping { nonce }),
        any::<u64>().prop_map(|nonce| FrontMessage::Canary { nonce }),
        (any::<u64>(), any::<u64>()).prop_map(|(id, epoch)| FrontMessage::Ask {
            request_id: RequestId(id),
            epoch,
        }),
    ]
}

fn any_finish() -> impl Strategy<Value = Option<FinishReason>> {
    prop_oneof![
        Just(None),
        any::<u32>().prop_map(|id| Some(FinishReason::Eos(id))),
        Just(Some(FinishReason::Length)),
        any::<u32>()
            .prop_map(|position| Some(FinishReason::Failed(RowError::InvalidLogits { position }))),
    ]
}

fn any_event() -> impl Strategy<Value = SequenceEvent> {
    let ids = prop::collection::vec(any::<u32>(), 0..3);
    (any::<(u64, u32)>(), ids, any::<Option<u32>>(), any_finish()).prop_map(
        |((id, attempt), token_ids, num_cached_tokens, finish)| SequenceEvent {
            request_id: RequestId(id),
            attempt,
            first_index: attempt / 2,
            logprobs: token_ids
                .iter()
                .map(|&token| TokenLogprobs {
                    token,
                    logprob: -(token as f32),
                    rank: 1,
                    top: vec![(token, -0.5)],
                })
                .collect(),
            token_ids: token_ids.into(),
            prompt: num_cached_tokens.map(|num_cached_tokens| {
                Box::new(PromptReport {
                    num_cached_tokens,
                    queued_ms: Some(id >> 3),
                    prompt_logprobs: Vec::new(),
                })
            }),
            finish,
        },
    )
}

fn any_engine_message() -> impl Strategy<Value = EngineMessage> {
    prop_oneof![
        (any::<u64>(), prop::collection::vec(any_event(), 0..8))
            .prop_map(|(step, events)| EngineMessage::Step { step, events }),
        any::<u64>().prop_map(|n| EngineMessage::Stats(Box::new(EngineStats {
            num_steps: n,
            schedule_ns: n / 3,
            ..EngineStats::default()
        }))),
        ".{0,20}".prop_map(|message| EngineMessage::Fatal { message }),
        (any::<u64>(), ".{0,20}").prop_map(|(id, why)| EngineMessage::Rejected {
            request_id: RequestId(id),
            attempt: 1,
            reason: RejectReason::Impossible(why),
        }),
    ]
}

proptest! {
    #[test]
    fn messages_come_out_as_they_went_in_however_the_stream_is_split(
        messages in prop::collection::vec(any_front_message(), 0..6),
        cuts in prop::collection::vec(1usize..40, 1..40),
    ) {
        let mut stream = Vec::new();
        for message in &messages {
            encode_frame(message, MAX_BYTES, &mut stream).unwrap();
        }
        let mut decoder = FrameDecoder::new(MAX_BYTES);
        let mut received = Vec::new();
        let (mut rest, mut cut) = (stream.as_slice(), cuts.iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            decoder.push(piece);
            while let Some(message) = decoder.next_message::<FrontMessage>().unwrap() {
                received.push(message);
            }
            rest = after;
        }
        prop_assert_eq!(received, messages);
        prop_assert_eq!(decoder.num_buffered_bytes(), 0);
        decoder.finish().unwrap();
    }

    #[test]
    fn engine_messages_cross_blocking_streams(
        messages in prop::collection::vec(any_engine_message(), 0..6),
        max_buffered_bytes in 1usize..200,
    ) {
        let mut writer = FrameWriter::new(Vec::new(), MAX_BYTES, max_buffered_bytes);
        for message in &messages {
            writer.queue(message).unwrap();
        }
        writer.flush().unwrap();
        prop_assert!(writer.is_empty());
        let mut reader = FrameReader::new(writer.get_ref().as_slice(), MAX_BYTES);
        for message in &messages {
            let received = reader.read::<EngineMessage>().unwrap();
            prop_assert_eq!(received.as_ref(), Some(message));
        }
        prop_assert!(reader.read::<EngineMessage>().unwrap().is_none());
    }

    #[test]
    fn garbage_is_an_error_or_a_wait_for_more_and_holds_only_what_came(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let mut decoder = FrameDecoder::new(MAX_BYTES);
        decoder.push(&bytes);
        while let Ok(Some(_)) = decoder.next_message::<FrontMessage>() {}
        prop_assert!(decoder.num_buffered_bytes() <= bytes.len());
    }

    #[test]
    fn a_valid_frame_around_garbage_decodes_to_something_equal_or_fails(
        payload in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        if let Ok(message) = decode_one::<FrontMessage>(&frame_of(&payload)) {
            let message = message.expect("the frame is complete");
            let mut again = Vec::new();
            encode_frame(&message, MAX_BYTES, &mut again).unwrap();
            // Not the same bytes, as varints have several spellings; NaN is not equal to itself.
            let copy = decode_one::<FrontMessage>(&again).unwrap().unwrap();
            prop_assert_eq!(format!("{copy:?}"), format!("{message:?}"));
        }
        // The engine's side has nested lists; it must fail as quietly.
        let _either_way = decode_one::<EngineMessage>(&frame_of(&payload));
    }

    #[test]
    fn one_flipped_bit_never_panics_and_never_yields_more_messages(
        message in any_front_message(),
        position in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let mut stream = Vec::new();
        encode_frame(&message, MAX_BYTES, &mut stream).unwrap();
        let index = position.index(stream.len());
        stream[index] ^= 1 << bit;
        let mut decoder = FrameDecoder::new(MAX_BYTES);
        decoder.push(&stream);
        let mut num_messages = 0;
        while let Ok(Some(_)) = decoder.next_message::<FrontMessage>() {
            num_messages += 1;
        }
        prop_assert!(num_messages <= 1);
    }

    #[test]
    fn a_stream_cut_anywhere_is_truncated(
        message in any_generate(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut stream = Vec::new();
        encode_frame(&message, MAX_BYTES, &mut stream).unwrap();
        let at = at.index(stream.len());
        let mut reader = FrameReader::new(&stream[..at], MAX_BYTES);
        match reader.read::<FrontMessage>() {
            Ok(None) => prop_assert_eq!(at, 0),
            Err(LinkError::Truncated { num_missing_bytes }) => {
                let whole = if at < HEADER_BYTES { HEADER_BYTES } else { stream.len() };
                prop_assert_eq!(num_missing_bytes, whole - at);
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }
}

#[test]
fn headers_are_checked_before_the_message_arrives() {
    let error = decode_one::<FrontMessage>(&header(0x5448, FRAME_VERSION, 1)).unwrap_err();
    assert!(matches!(error, LinkError::BadMagic { found: 0x5448 }));
    let error = decode_one::<FrontMessage>(&header(MAGIC, 9, 1)).unwrap_err();
    assert!(matches!(
        error,
        LinkError::UnsupportedFrameVersion { found: 9, .. }
    ));
    let mut decoder = FrameDecoder::new(MAX_BYTES);
    decoder.push(&header(MAGIC, FRAME_VERSION, u32::MAX));
    for _ in 0..2 {
        let error = decoder.next_message::<FrontMessage>().unwrap_err();
        assert!(matches!(error, LinkError::FrameTooLarge { num_bytes, .. }
            if num_bytes == u64::from(u32::MAX)));
    }
    assert!(decoder.finish().is_err());
}

#[test]
fn the_bound_is_exact_and_an_oversized_message_leaves_the_stream_whole() {
    let message = EngineMessage::Fatal {
        message: "x".repeat(100),
    };
    let num_bytes = postcard::to_allocvec(&message).unwrap().len();
    let small = EngineMessage::Pong { nonce: 7 };
    let mut writer = FrameWriter::new(Vec::new(), num_bytes - 1, 1 << 20);
    writer.queue(&small).unwrap();
    let error = writer.queue(&message).unwrap_err();
    assert!(matches!(error, LinkError::FrameTooLarge { .. }), "{error}");
    writer.write(&small).unwrap();
    let mut reader = FrameReader::new(writer.get_ref().as_slice(), num_bytes);
    for _ in 0..2 {
        let received = reader.read::<EngineMessage>().unwrap();
        assert_eq!(received, Some(small.clone()));
    }

    let mut exact = Vec::new();
    encode_frame(&message, num_bytes, &mut exact).unwrap();
    assert_eq!(decode_one(&exact).unwrap(), Some(message));
}

#[test]
fn a_list_that_claims_more_than_its_frame_holds_is_refused() {
    // Variant `Generate`, request 1, attempt 0, then a list of 2^56 ids with none in it.
    let payload = [1, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let error = decode_one::<FrontMessage>(&frame_of(&payload)).unwrap_err();
    assert!(matches!(error, LinkError::Decode(_)), "{error}");
    // Variant `Step`, step 0, and as many events.
    let payload = [4, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    let error = decode_one::<EngineMessage>(&frame_of(&payload)).unwrap_err();
    assert!(matches!(error, LinkError::Decode(_)), "{error}");
}

#[test]
fn bytes_after_the_message_are_an_error() {
    let mut payload = postcard::to_allocvec(&FrontMessage::Drain).unwrap();
    assert_eq!(
        decode_one(&frame_of(&payload)).unwrap(),
        Some(FrontMessage::Drain)
    );
    payload.push(0);
    let error = decode_one::<FrontMessage>(&frame_of(&payload)).unwrap_err();
    assert!(matches!(error, LinkError::Decode(_)), "{error}");
}

#[test]
fn a_long_message_does_not_keep_its_memory() {
    let long = EngineMessage::Fatal {
        message: "x".repeat(4 << 20),
    };
    let mut stream = Vec::new();
    encode_frame(&long, 8 << 20, &mut stream).unwrap();
    let mut decoder = FrameDecoder::new(8 << 20);
    decoder.push(&stream);
    assert_eq!(decoder.next_message().unwrap(), Some(long));
    decoder.push(&[0]);
    assert!(decoder.num_reserved_bytes() <= 1 << 20);
}

#[test]
fn versions_are_negotiated() {
    let range = |min, max| ProtocolRange { min, max };
    assert_eq!(range(1, 3).agree(range(2, 5)).unwrap(), 3);
    assert_eq!(range(2, 5).agree(range(1, 2)).unwrap(), 2);
    let error = range(1, 1).agree(range(2, 5)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no common protocol version: 1 to 1 here, 2 to 5 there"
    );
    assert!(range(5, 1).agree(range(1, 5)).is_err());
}
