//! The [AsyncAPI 3.0](https://www.asyncapi.com/docs/reference/specification/v3.0.0) document, seen from rolebridge: it sends events, and receives
//! requests and replies to them. What is internal is in it too, for those who work on rolebridge, and marked (`x-audience`, tag `internal`).

use serde_json::{Map, Value, json};

use super::{Examples, component_generator, document_of, document_schema};
use crate::{
    Audience, ErrorCode,
    catalog::{self, Body, EndpointContract, MessageContract},
    credentials::Purpose,
};

const ERROR_MESSAGE: &str = "error-reply";

/// The whole document.
pub(super) fn document(examples: &Examples) -> Value {
    let mut parts = Parts::new(examples);
    for message in catalog::messages() {
        parts.message(&message);
    }
    for endpoint in catalog::endpoints() {
        parts.endpoint(&endpoint);
    }
    for (name, body) in catalog::bodies() {
        parts.schema(&name, body);
    }
    parts.error_reply();
    parts.header_schemas();
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:rolebridge",
        "info": info(),
        "defaultContentType": "application/json",
        "servers": { "nats": server() },
        "channels": parts.channels,
        "operations": parts.operations,
        "components": { "messages": parts.messages, "schemas": parts.schemas },
    })
}

fn info() -> Value {
    json!({
        "title": "rolebridge",
        "version": "1.0.0",
        "description": "Events, requests and replies on NATS. Events are CloudEvents 1.0 (JSON, structured mode) in JetStream streams; \
            requests are answered by NATS micro services (ADR-32), by an error reply if need be. Within a version only optional fields are added. \
            What is tagged `internal` is for rolebridge's own services: NATS permissions keep everybody else out, and it may change without notice.",
        "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        "tags": [
            { "name": "public", "description": "For any consumer that the operator's permissions allow." },
            { "name": "internal", "description": "For rolebridge's own services alone." },
        ],
    })
}

fn server() -> Value {
    json!({
        "host": "{host}:{port}",
        "protocol": "nats",
        "title": "NATS",
        "description": "nats-server 2.12 or later with JetStream. Log in with an nkey; each has its permissions, and its inboxes begin with `_INBOX_<name>.`.",
        "variables": {
            "host": { "default": "127.0.0.1", "description": "Where the server is." },
            "port": { "default": "4222", "description": "Its client port." },
        },
    })
}

/// The document's parts while they are gathered.
struct Parts<'e> {
    examples: &'e Examples,
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl<'e> Parts<'e> {
    fn new(examples: &'e Examples) -> Self {
        Self { examples, channels: Map::new(), operations: Map::new(), messages: Map::new(), schemas: Map::new() }
    }

    fn message(&mut self, contract: &MessageContract) {
        let (kind, audience) = (contract.kind, audience(contract.audience));
        let tags = json!([{ "name": audience }, { "name": contract.producer }]);
        self.messages
            .insert(kind.to_owned(), self.message_object(kind, contract.summary, "event-headers", &tags, audience));
        self.channels.insert(
            kind.to_owned(),
            json!({
                "address": address(contract.subject, contract.keys),
                "description": format!("Stored in the stream `{}`.", contract.stream.name()),
                "messages": { kind: reference("components/messages", kind) },
                "parameters": parameters(contract.keys),
                "x-audience": audience,
                "x-stream": contract.stream.name(),
            }),
        );
        self.operations.insert(
            format!("publish.{kind}"),
            json!({
                "action": "send",
                "channel": reference("channels", kind),
                "messages": [channel_message(kind, kind)],
                "summary": contract.summary,
                "tags": tags,
                "x-audience": audience,
            }),
        );
    }

    fn endpoint(&mut self, contract: &EndpointContract) {
        let name = contract.name;
        let (request, response, reply) =
            (format!("{name}.request"), format!("{name}.response"), format!("{name}.reply"));
        let tags = json!([{ "name": "public" }, { "name": contract.service }]);
        let requested = self.message_object(&request, contract.summary, "request-headers", &tags, "public");
        let responded =
            self.message_object(&response, "The answer when nothing is wrong.", "reply-headers", &tags, "public");
        self.messages.insert(request.clone(), requested);
        self.messages.insert(response.clone(), responded);
        self.channels.insert(
            name.to_owned(),
            json!({
                "address": address(contract.subject, contract.keys),
                "description": format!("Endpoint `{name}` of the micro service `{}`.", contract.service),
                "messages": { &request: reference("components/messages", &request) },
                "parameters": parameters(contract.keys),
                "x-audience": "public",
            }),
        );
        self.channels.insert(
            reply.clone(),
            json!({
                "address": null,
                "description": "The inbox that the request named.",
                "messages": { &response: reference("components/messages", &response), ERROR_MESSAGE: reference("components/messages", ERROR_MESSAGE) },
                "x-audience": "public",
            }),
        );
        self.operations.insert(
            format!("serve.{name}"),
            json!({
                "action": "receive",
                "channel": reference("channels", name),
                "messages": [channel_message(name, &request)],
                "summary": contract.summary,
                "tags": tags,
                "reply": {
                    "address": {
                        "location": "$message.header#/reply",
                        "description": "The reply subject of the NATS request: the requester's inbox. Clients set it by themselves.",
                    },
                    "channel": reference("channels", &reply),
                    "messages": [channel_message(&reply, &response), channel_message(&reply, ERROR_MESSAGE)],
                },
                "x-audience": "public",
            }),
        );
    }

    fn error_reply(&mut self) {
        let tags = json!([{ "name": "public" }]);
        let summary = "The answer when something is wrong. The headers say so too, as ADR-32 wants it.";
        let message = self.message_object(ERROR_MESSAGE, summary, "error-headers", &tags, "public");
        self.messages.insert(ERROR_MESSAGE.to_owned(), message);
    }

    fn message_object(&self, name: &str, summary: &str, headers: &str, tags: &Value, audience: &str) -> Value {
        let mut message = json!({
            "name": name,
            "title": name,
            "summary": summary,
            "contentType": "application/json",
            "headers": reference("components/schemas", headers),
            "payload": reference("components/schemas", name),
            "tags": tags,
            "x-audience": audience,
        });
        let names: Vec<String> = catalog::bodies().into_keys().collect();
        let examples =
            self.examples.iter().filter(|(example, _)| document_of(example, names.iter()).is_some_and(|of| of == name));
        let examples: Vec<Value> =
            examples.map(|(example, payload)| json!({ "name": example, "payload": payload })).collect();
        if let (Some(object), false) = (message.as_object_mut(), examples.is_empty()) {
            object.insert("examples".to_owned(), Value::Array(examples));
        }
        message
    }

    /// Adds the schema of one document, and those that it refers to.
    fn schema(&mut self, name: &str, body: Body) {
        let mut schema = document_schema(name, body, &mut component_generator());
        let components = schema.as_object_mut().and_then(|object| object.remove("components"));
        let referred = components.and_then(|mut components| components.get_mut("schemas").map(Value::take));
        if let Some(Value::Object(referred)) = referred {
            self.schemas.extend(referred);
        }
        self.schemas.insert(name.to_owned(), schema);
    }

    fn header_schemas(&mut self) {
        let traceparent = json!({ "type": "string", "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
            "description": "W3C trace context of the work that sent it; goes on in the receiver." });
        let headers = |required: &[&str], properties: Value| json!({ "type": "object", "properties": properties, "required": required });
        let event = json!({ "traceparent": traceparent, "Nats-Msg-Id": { "type": "string", "format": "uuid", "description": "The event's `id`: the stream drops a second one." } });
        let codes: Vec<String> = ErrorCode::ALL.into_iter().map(|code| code.number().to_string()).collect();
        let error = json!({
            "Nats-Service-Error": { "type": "string", "description": "The error's message." },
            "Nats-Service-Error-Code": { "type": "string", "enum": codes, "description": "The error's number." },
        });
        self.schemas.insert("event-headers".to_owned(), headers(&["Nats-Msg-Id"], event));
        self.schemas.insert("request-headers".to_owned(), headers(&[], json!({ "traceparent": traceparent })));
        self.schemas.insert("reply-headers".to_owned(), headers(&[], json!({})));
        self.schemas
            .insert("error-headers".to_owned(), headers(&["Nats-Service-Error", "Nats-Service-Error-Code"], error));
    }
}

/// `rolebridge.events.v1.tenant.created.*` as `rolebridge.events.v1.tenant.created.{tenant}`.
fn address(subject: &str, keys: &[&str]) -> String {
    let mut keys = keys.iter();
    let parts = subject.split('.').map(|part| match part {
        "*" => keys.next().map_or_else(|| part.to_owned(), |key| format!("{{{key}}}")),
        other => other.to_owned(),
    });
    parts.collect::<Vec<_>>().join(".")
}

fn parameters(keys: &[&str]) -> Value {
    let described = keys.iter().map(|key| {
        let parameter = match *key {
            "purpose" => {
                json!({ "description": "What the credentials are for.", "enum": Purpose::ALL.map(Purpose::as_str) })
            }
            other => json!({ "description": format!("The {other}'s ID, a UUID.") }),
        };
        ((*key).to_owned(), parameter)
    });
    Value::Object(described.collect())
}

const fn audience(audience: Audience) -> &'static str {
    match audience {
        Audience::Public => "public",
        Audience::Internal => "internal",
    }
}

fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

fn channel_message(channel: &str, message: &str) -> Value {
    json!({ "$ref": format!("#/channels/{channel}/messages/{message}") })
}
