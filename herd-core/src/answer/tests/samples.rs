//! Answers of a real server, cut to a few tokens.

pub(super) const CHAT_STREAM: &str = r#"{"model":"tiny","created_at":"2026-11-22T12:54:51.139494872Z","message":{"role":"assistant","content":" Hello"},"done":false}
{"model":"tiny","created_at":"2026-11-22T12:54:51.168148118Z","message":{"role":"assistant","content":" from"},"done":false}
{"model":"tiny","created_at":"2026-11-22T12:54:51.367592316Z","message":{"role":"assistant","content":"."},"done":false}
{"model":"tiny","created_at":"2026-11-22T12:54:51.391654555Z","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":276821856,"load_duration":1018319,"prompt_eval_count":29,"prompt_eval_duration":22026000,"eval_count":11,"eval_duration":249912000}
"#;

pub(super) const CHAT_TOOLS_STREAM: &str = r#"{"model":"tools","created_at":"2026-11-22T12:55:01.525764993Z","message":{"role":"assistant","content":"","thinking":"I should look"},"done":false}
{"model":"tools","created_at":"2026-11-22T12:55:02.766033845Z","message":{"role":"assistant","content":"","tool_calls":[{"id":"IDdImxo8bHUTxO7ibB9O972WLBQbcz1o","function":{"index":0,"name":"get_weather","arguments":{"city":"Paris"}}}]},"done":true,"done_reason":"stop","prompt_eval_count":205,"eval_count":10}
"#;

pub(super) const CHAT: &str = r#"{"model":"tiny","created_at":"2026-11-22T12:54:51.705637938Z","message":{"role":"assistant","content":" Hello from a small test model with random weights."},"done":true,"done_reason":"stop","total_duration":284163026,"load_duration":1350304,"prompt_eval_count":29,"prompt_eval_duration":29275000,"eval_count":11,"eval_duration":251012000}"#;

pub(super) const GENERATE_STREAM: &str = r#"{"model":"tiny","created_at":"2026-11-22T12:54:52.834151502Z","response":" Hello","done":false}
{"model":"tiny","created_at":"2026-11-22T12:54:52.860837444Z","response":" from","done":false}
{"model":"tiny","created_at":"2026-11-22T12:54:53.120957971Z","response":"","done":true,"done_reason":"stop","context":[529,29989,326,29918,2962,29989,29958,1792,13,2918,29966,29989,326,29918,355,29989,29958,13,29966,29989,326,29918,2962,29989,29958,465,22137,13,15043,515,263,2319,1243,1904,411,4036,18177,29889],"total_duration":312773258,"load_duration":1514969,"prompt_eval_count":29,"prompt_eval_duration":21446000,"eval_count":11,"eval_duration":286247000}
"#;

pub(super) const GENERATE_LOAD: &str =
    r#"{"model":"tiny","created_at":"2026-11-22T12:54:53.466904055Z","response":"","done":true,"done_reason":"load"}"#;

pub(super) const EMBED: &str = r#"{"model":"embed","embeddings":[[-0.007817857,-0.11909686],[0.0123759825,-0.14612941]],"total_duration":274307937,"load_duration":264992703,"prompt_eval_count":6}"#;

pub(super) const EMBEDDINGS: &str = r#"{"embedding":[-0.007817856036126614,-0.11909684538841248]}"#;

pub(super) const V1_EMBEDDINGS: &str = r#"{"object":"list","data":[{"object":"embedding","embedding":[-0.007817857,-0.11909686],"index":0},{"object":"embedding","embedding":[0.0123759825,-0.14612941],"index":1}],"model":"embed","usage":{"prompt_tokens":6,"total_tokens":6}}
"#;

pub(super) const V1_CHAT_STREAM_USAGE: &str = r#"data: {"id":"chatcmpl-461","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":" Hello"},"finish_reason":null}]}

data: {"id":"chatcmpl-461","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":" from"},"finish_reason":null}]}

data: {"id":"chatcmpl-461","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":"."},"finish_reason":null}]}

data: {"id":"chatcmpl-461","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: {"id":"chatcmpl-461","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[],"usage":{"prompt_tokens":29,"completion_tokens":11,"total_tokens":40}}

data: [DONE]

"#;

pub(super) const V1_CHAT_STREAM: &str = r#"data: {"id":"chatcmpl-658","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":" Hello"},"finish_reason":null}]}

data: {"id":"chatcmpl-658","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":" from"},"finish_reason":null}]}

data: {"id":"chatcmpl-658","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":"."},"finish_reason":null}]}

data: {"id":"chatcmpl-658","object":"chat.completion.chunk","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

data: [DONE]

"#;

pub(super) const V1_CHAT_TOOLS_STREAM: &str = r#"data: {"id":"chatcmpl-110","object":"chat.completion.chunk","created":1795352103,"model":"tools","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"I should look"},"finish_reason":null}]}

data: {"id":"chatcmpl-110","object":"chat.completion.chunk","created":1795352103,"model":"tools","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":"","tool_calls":[{"id":"UlovCLTQdR1KcoLPNU87ZnOzr8wPWGEZ","index":0,"type":"function","function":{"name":"get_weather","arguments":"{\"city\":\"Paris\"}"}}]},"finish_reason":null}]}

data: {"id":"chatcmpl-110","object":"chat.completion.chunk","created":1795352103,"model":"tools","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}

data: [DONE]

"#;

pub(super) const V1_CHAT_BOGUS: &str = r#"data: {"id":"chatcmpl-898","object":"chat.completion.chunk","created":1795352388,"model":"","system_fingerprint":"fp_ollama","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}

"#;

pub(super) const V1_CHAT_ERROR: &str = r#"data: {"error":{"message":"engine died","type":"api_error","param":null,"code":null}}

"#;

pub(super) const V1_CHAT: &str = r#"{"id":"chatcmpl-307","object":"chat.completion","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"index":0,"message":{"role":"assistant","content":" Hello from a small test model with random weights."},"finish_reason":"stop"}],"usage":{"prompt_tokens":29,"completion_tokens":11,"total_tokens":40}}
"#;

pub(super) const V1_COMPLETIONS_STREAM: &str = r#"data: {"id":"cmpl-766","object":"text_completion","created":1795352096,"choices":[{"text":" Hello","index":0,"finish_reason":null}],"model":"tiny","system_fingerprint":"fp_ollama","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}

data: {"id":"cmpl-766","object":"text_completion","created":1795352096,"choices":[{"text":" from","index":0,"finish_reason":null}],"model":"tiny","system_fingerprint":"fp_ollama","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}

data: {"id":"cmpl-766","object":"text_completion","created":1795352096,"choices":[{"text":"","index":0,"finish_reason":"stop"}],"model":"tiny","system_fingerprint":"fp_ollama","usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}}

data: {"id":"cmpl-766","object":"text_completion","created":1795352096,"choices":[],"model":"tiny","system_fingerprint":"fp_ollama","usage":{"prompt_tokens":29,"completion_tokens":11,"total_tokens":40}}

data: [DONE]

"#;

pub(super) const V1_COMPLETIONS: &str = r#"{"id":"cmpl-120","object":"text_completion","created":1795352095,"model":"tiny","system_fingerprint":"fp_ollama","choices":[{"text":" Hello from a small test model with random weights.","index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":29,"completion_tokens":11,"total_tokens":40}}
"#;

pub(super) const V1_RESPONSES_STREAM: &str = r#"event: response.created
data: {"response":{"background":false,"completed_at":null,"created_at":1795352097,"error":null,"frequency_penalty":0,"id":"resp_697525","incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"metadata":{},"model":"tiny","object":"response","output":[],"parallel_tool_calls":true,"presence_penalty":0,"previous_response_id":null,"prompt_cache_key":null,"reasoning":null,"safety_identifier":null,"service_tier":"default","status":"in_progress","store":false,"temperature":1,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1,"truncation":"disabled","usage":null},"sequence_number":0,"type":"response.created"}

event: response.output_item.added
data: {"item":{"content":[],"id":"msg_958998","role":"assistant","status":"in_progress","type":"message"},"output_index":0,"sequence_number":2,"type":"response.output_item.added"}

event: response.content_part.added
data: {"content_index":0,"item_id":"msg_958998","output_index":0,"part":{"annotations":[],"logprobs":[],"text":"","type":"output_text"},"sequence_number":3,"type":"response.content_part.added"}

event: response.output_text.delta
data: {"content_index":0,"delta":" Hello","item_id":"msg_958998","logprobs":[],"output_index":0,"sequence_number":4,"type":"response.output_text.delta"}

event: response.output_text.delta
data: {"content_index":0,"delta":" from","item_id":"msg_958998","logprobs":[],"output_index":0,"sequence_number":5,"type":"response.output_text.delta"}

event: response.output_text.done
data: {"content_index":0,"item_id":"msg_958998","logprobs":[],"output_index":0,"sequence_number":14,"text":" Hello from a small test model with random weights.","type":"response.output_text.done"}

event: response.completed
data: {"response":{"background":false,"completed_at":1795352097,"created_at":1795352097,"error":null,"frequency_penalty":0,"id":"resp_697525","incomplete_details":null,"instructions":null,"max_output_tokens":null,"max_tool_calls":null,"metadata":{},"model":"tiny","object":"response","output":[{"content":[{"annotations":[],"logprobs":[],"text":" Hello from a small test model with random weights.","type":"output_text"}],"id":"msg_958998","role":"assistant","status":"completed","type":"message"}],"parallel_tool_calls":true,"presence_penalty":0,"previous_response_id":null,"prompt_cache_key":null,"reasoning":null,"safety_identifier":null,"service_tier":"default","status":"completed","store":false,"temperature":1,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[],"top_logprobs":0,"top_p":1,"truncation":"disabled","usage":{"input_tokens":29,"input_tokens_details":{"cached_tokens":0},"output_tokens":11,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":40}},"sequence_number":17,"type":"response.completed"}

"#;

pub(super) const V1_RESPONSES: &str = r#"{"id":"resp_817086","object":"response","created_at":1795352097,"completed_at":1795352097,"status":"completed","incomplete_details":null,"model":"tiny","previous_response_id":null,"instructions":null,"output":[{"id":"msg_797624","type":"message","status":"completed","role":"assistant","content":[{"type":"output_text","text":" Hello from a small test model with random weights.","annotations":[],"logprobs":[]}]}],"error":null,"tools":[],"tool_choice":"auto","truncation":"disabled","parallel_tool_calls":true,"text":{"format":{"type":"text"}},"top_p":1,"presence_penalty":0,"frequency_penalty":0,"top_logprobs":0,"temperature":1,"reasoning":null,"usage":{"input_tokens":29,"output_tokens":11,"total_tokens":40,"input_tokens_details":{"cached_tokens":0},"output_tokens_details":{"reasoning_tokens":0}},"max_output_tokens":null,"max_tool_calls":null,"store":false,"background":false,"service_tier":"default","metadata":{},"safety_identifier":null,"prompt_cache_key":null}
"#;

pub(super) const V1_MESSAGES_STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_02386dbb2594d576a19902ed","type":"message","role":"assistant","model":"tiny","content":[],"usage":{"input_tokens":1,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" from"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":29,"output_tokens":11}}

event: message_stop
data: {"type":"message_stop"}

"#;

pub(super) const V1_MESSAGES_TOOLS_STREAM: &str = r#"event: message_start
data: {"type":"message_start","message":{"id":"msg_4b06a5b2d462255c2bfd0183","type":"message","role":"assistant","model":"tools","content":[],"usage":{"input_tokens":25,"output_tokens":0}}}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"I should look"}}

event: content_block_delta
data: {"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\":\"Paris\"}"}}

event: content_block_stop
data: {"type":"content_block_stop","index":1}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"input_tokens":205,"output_tokens":10}}

event: message_stop
data: {"type":"message_stop"}

"#;

pub(super) const V1_MESSAGES: &str = r#"{"id":"msg_fd8286ddc24703d33e3e6fcf","type":"message","role":"assistant","model":"tiny","content":[{"type":"text","text":" Hello from a small test model with random weights."}],"stop_reason":"end_turn","usage":{"input_tokens":29,"output_tokens":11}}
"#;
