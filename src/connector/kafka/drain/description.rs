//! What brokers know of a topic by its name, asked through the C library: the bindings have no call for it.

use std::{ffi::c_int, ptr, slice, time::Duration};

use rdkafka::{error::RDKafkaErrorCode, types::RDKafkaRespErr};
use rdkafka_sys as sys;

use super::{Drain, c_name, millis, text};
use crate::connector::kafka::connection::Failure;

/// What brokers say of a topic to who asks.
#[derive(Debug)]
pub struct Description {
    /// What the brokers gave the topic when it was made; `None` where they are so old that they give no ids.
    pub id: Option<String>,
    /// Whether who asks may write to it. Brokers that do not say are taken to let everybody.
    pub is_writable: bool,
}

impl Drain {
    pub fn describe(&self, topic: &str, timeout: Duration) -> Result<Description, Failure> {
        let name = c_name(topic).map_err(Failure::Failed)?;
        let client = self.client.native_ptr();
        // SAFETY: the client is alive, all that is made here is destroyed by `Question`, and the texts are copied.
        let event = unsafe {
            let question = Question::new(client, timeout);
            let mut names = [name.as_ptr()];
            let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
            sys::rd_kafka_DescribeTopics(client, topics, question.options, question.queue);
            sys::rd_kafka_TopicCollection_destroy(topics);
            question.answer(timeout)
        };
        self.serve();
        let Some(event) = event else {
            return Err(self.connection().failure());
        };
        // SAFETY: the event is alive until the end of this function, and what it lends is read before.
        let answer = unsafe {
            match sys::rd_kafka_event_error(event.0) {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => described(event.0),
                code => Err((
                    RDKafkaErrorCode::from(code),
                    text(sys::rd_kafka_event_error_string(event.0)),
                )),
            }
        };
        answer.map_err(|(error, detail)| self.connection().explain(topic, error, &detail))
    }
}

/// A question of the admin interface, with what it needs.
struct Question {
    options: *mut sys::rd_kafka_AdminOptions_t,
    queue: *mut sys::rd_kafka_queue_t,
}

impl Question {
    /// # Safety
    /// The client outlives the question.
    unsafe fn new(client: *mut sys::rd_kafka_t, timeout: Duration) -> Self {
        // SAFETY: the caller's; the options are alive, and where a text of an error may go is optional.
        unsafe {
            let options =
                sys::rd_kafka_AdminOptions_new(client, sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS);
            sys::rd_kafka_AdminOptions_set_request_timeout(options, millis(timeout), ptr::null_mut(), 0);
            // Only options of another question would not take it, and then there is nothing to destroy.
            let refused = sys::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            assert!(refused.is_null(), "it is an option of this question");
            Self {
                options,
                queue: sys::rd_kafka_queue_new(client),
            }
        }
    }

    /// What comes within the time-out.
    fn answer(&self, timeout: Duration) -> Option<OwnedEvent> {
        // SAFETY: the queue is alive.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue, millis(timeout)) };
        (!event.is_null()).then_some(OwnedEvent(event))
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        // SAFETY: both were made by `new`, and are destroyed once. An answer that comes later is thrown away with its queue.
        unsafe {
            sys::rd_kafka_queue_destroy(self.queue);
            sys::rd_kafka_AdminOptions_destroy(self.options);
        }
    }
}

/// An event of a queue, destroyed with this.
struct OwnedEvent(*mut sys::rd_kafka_event_t);

impl Drop for OwnedEvent {
    fn drop(&mut self) {
        // SAFETY: an event that was polled belongs to us, and is destroyed once.
        unsafe { sys::rd_kafka_event_destroy(self.0) }
    }
}

/// The answer about one topic.
///
/// # Safety
/// The event is alive.
unsafe fn described(event: *mut sys::rd_kafka_event_t) -> Result<Description, (RDKafkaErrorCode, String)> {
    let unknown = |reason: &str| (RDKafkaErrorCode::Unknown, reason.to_owned());
    // SAFETY: the caller's; everything is lent by the event, and each pointer is looked at before it is followed.
    unsafe {
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(unknown("another answer than that about a topic"));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if count == 0 || topics.is_null() {
            return Err(unknown("an answer about no topic"));
        }
        let error = sys::rd_kafka_TopicDescription_error(*topics);
        if !error.is_null() {
            let code = sys::rd_kafka_error_code(error);
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err((code.into(), text(sys::rd_kafka_error_string(error))));
            }
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(*topics);
        let is_given = !id.is_null()
            && (
                sys::rd_kafka_Uuid_most_significant_bits(id),
                sys::rd_kafka_Uuid_least_significant_bits(id),
            ) != (0, 0);
        // Numbers, because brokers may know more operations than the bindings.
        let operations = sys::rd_kafka_TopicDescription_authorized_operations(*topics, &raw mut count).cast::<c_int>();
        let is_writable = operations.is_null()
            || count == 0
            || slice::from_raw_parts(operations, count)
                .contains(&(sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE as c_int));
        Ok(Description {
            id: is_given.then(|| text(sys::rd_kafka_Uuid_base64str(id))),
            is_writable,
        })
    }
}
