//! GGUF files: the same model as a Hugging Face directory's, and refusals of what is damaged or not computed.
//!
//! The files are written here from the fixtures of `transformers`, with rows in the order in which llama.cpp's
//! converter writes them. `tests/smollm2.sh` does the same with a published file and llama.cpp itself.

#![allow(clippy::unwrap_used)]

mod common;

use candle_core::quantized::gguf_file::{self, Value as Meta};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};
use common::{directory, load, tokens};
use octet_policy::config::{Architecture, Dtype, ModelConfig};
use octet_policy::files::Weights;
use octet_policy::gguf::Gguf;
use octet_policy::layout::PackedGroups;
use octet_policy::model::{Model, Params};
use octet_policy::policy::Policy;
use octet_policy::source::Source;
use octet_policy::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::path::Path;

/// What a file is made of.
#[derive(Clone)]
struct Parts {
    metadata: Vec<(String, Meta)>,
    tensors: Vec<(String, Tensor)>,
    dtype: GgmlDType,
}

impl Parts {
    /// A model with the tokenizer of the fixtures.
    fn new(config: &ModelConfig, values: impl Fn(&str) -> Vec<f32>) -> Self {
        let metadata = metadata(config);
        let mut tensors = Vec::new();
        for spec in config.tensor_specs() {
            let heads = match spec.name.as_str() {
                name if name.contains("q_proj") => config.num_attention_heads,
                name if name.contains("k_proj") => config.num_key_value_heads,
                _ => 0,
            };
            let mut tensor =
                Tensor::from_vec(values(&spec.name), spec.shape.as_slice(), &Device::Cpu).unwrap();
            if heads > 0 && config.architecture == Architecture::Llama {
                tensor = interleaved(&tensor, heads);
            }
            tensors.push((gguf_name(&spec.name), tensor));
        }
        if let Some(scaling) = &config.rope.scaling {
            tensors.push(("rope_freqs.weight".into(), divisors(config, scaling)));
        }
        Self { metadata, tensors, dtype: GgmlDType::F32 }
    }

    fn of(name: &str) -> Self {
        let config = ModelConfig::from_dir(&directory(name)).unwrap();
        let weights = Weights::open(&directory(name), &config).unwrap();
        Self::new(&config, |name| weights.f32(name).unwrap())
    }

    fn set(mut self, key: &str, value: Meta) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.metadata.push((key.into(), value));
        self
    }

    fn without(mut self, key: &str) -> Self {
        self.metadata.retain(|(k, _)| k != key);
        self.tensors.retain(|(name, _)| name != key);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let quantise = |(name, tensor): &(String, Tensor)| {
            // Vectors stay as they are, as converters keep them.
            let dtype = if tensor.rank() == 1 { GgmlDType::F32 } else { self.dtype };
            (name.clone(), QTensor::quantize(tensor, dtype).unwrap())
        };
        let tensors: Vec<_> = self.tensors.iter().map(quantise).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let metadata: Vec<_> = self.metadata.iter().map(|(k, v)| (k.as_str(), v)).collect();
        let mut bytes = std::io::Cursor::new(Vec::new());
        gguf_file::write(&mut bytes, &metadata, &tensors).unwrap();
        bytes.into_inner()
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).unwrap();
    }
}

fn gguf_name(name: &str) -> String {
    let names = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    names.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

/// llama.cpp's converter: `reshape(heads, 2, dim / 2, …).swapaxes(1, 2)`.
fn interleaved(tensor: &Tensor, heads: usize) -> Tensor {
    let rows = tensor.dim(0).unwrap();
    let parts = (heads, 2, rows / heads / 2, tensor.elem_count() / rows);
    let parts = tensor.reshape(parts).unwrap().transpose(1, 2).unwrap();
    parts.contiguous().unwrap().reshape(tensor.shape()).unwrap()
}

/// llama.cpp's converter writes what the scaling divides each frequency by.
fn divisors(config: &ModelConfig, scaling: &octet_policy::config::Llama3Scaling) -> Tensor {
    let (low, high) = (scaling.low_freq_factor, scaling.high_freq_factor);
    let context = scaling.original_max_position_embeddings;
    let divisor = |pair: usize| {
        let exponent = 2.0 * pair as f64 / config.head_dim as f64;
        let wavelength = std::f64::consts::TAU * config.rope.theta.powf(exponent);
        if wavelength < context / high {
            1.0
        } else if wavelength > context / low {
            scaling.factor as f32
        } else {
            let smooth = (context / wavelength - low) / (high - low);
            (1.0 / ((1.0 - smooth) / scaling.factor + smooth)) as f32
        }
    };
    let divisors: Vec<f32> = (0..config.head_dim / 2).map(divisor).collect();
    Tensor::new(divisors, &Device::Cpu).unwrap()
}

fn metadata(config: &ModelConfig) -> Vec<(String, Meta)> {
    let family = config.architecture.model_type();
    let size = |key: &str, size: usize| (format!("{family}.{key}"), Meta::U32(size as u32));
    let path = directory("qwen2-tied").join("tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut spelled = vec![String::new(); 320];
    for (token, id) in tokenizer["model"]["vocab"].as_object().unwrap() {
        spelled[id.as_u64().unwrap() as usize] = token.clone();
    }
    let mut kinds = vec![1; spelled.len()];
    for token in tokenizer["added_tokens"].as_array().unwrap() {
        let id = token["id"].as_u64().unwrap() as usize;
        spelled[id] = token["content"].as_str().unwrap().into();
        kinds[id] = if token["special"].as_bool().unwrap() { 3 } else { 4 };
    }
    let merge = |merge: &Value| match merge.as_str() {
        Some(text) => text.to_owned(),
        None => format!("{} {}", merge[0].as_str().unwrap(), merge[1].as_str().unwrap()),
    };
    let merges: Vec<String> =
        tokenizer["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
    let texts = |texts: Vec<String>| Meta::Array(texts.into_iter().map(Meta::String).collect());
    let text = |key: &str, text: &str| (key.to_owned(), Meta::String(text.into()));
    let id = |key: &str, id: u32| (format!("tokenizer.ggml.{key}_token_id"), Meta::U32(id));
    vec![
        text("general.architecture", family),
        size("block_count", config.num_hidden_layers),
        size("context_length", config.max_position_embeddings),
        size("embedding_length", config.hidden_size),
        size("feed_forward_length", config.intermediate_size),
        size("attention.head_count", config.num_attention_heads),
        size("attention.head_count_kv", config.num_key_value_heads),
        size("attention.key_length", config.head_dim),
        (format!("{family}.rope.freq_base"), Meta::F32(config.rope.theta as f32)),
        (
            format!("{family}.attention.layer_norm_rms_epsilon"),
            Meta::F32(config.rms_norm_eps as f32),
        ),
        text("tokenizer.ggml.model", "gpt2"),
        text("tokenizer.ggml.pre", "qwen2"),
        ("tokenizer.ggml.tokens".into(), texts(spelled)),
        (
            "tokenizer.ggml.token_type".into(),
            Meta::Array(kinds.into_iter().map(Meta::I32).collect()),
        ),
        ("tokenizer.ggml.merges".into(), texts(merges)),
        id("bos", 5),
        id("eos", 2),
        id("padding", 0),
        text(
            "tokenizer.chat_template",
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
             {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        ),
    ]
}

/// Writes the parts, and gives the refusal of loading them.
fn refused(parts: &Parts) -> String {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    parts.write(&path);
    let error = match Policy::load(&path, DType::F32, &Device::Cpu) {
        Ok(_) => panic!("a policy that should be refused was loaded"),
        Err(error) => error.to_string(),
    };
    assert!(error.contains("model.gguf") && !error.contains('\n'), "{error}");
    error
}

#[test]
fn every_family_is_the_model_of_its_directory_to_the_bit() {
    let home = tempfile::tempdir().unwrap();
    for name in ["qwen2-tied", "qwen2-untied-sharded", "qwen3-tied", "llama-tied"]
        .into_iter()
        .chain(["llama3-untied-biased"])
    {
        let path = home.path().join("model.gguf");
        Parts::of(name).write(&path);
        let file = Gguf::open(&path).unwrap();
        let (ours, theirs) = (file.config().unwrap(), load(name, DType::F32));
        assert_eq!(ours.rope, theirs.config().rope, "{name}");
        assert_eq!(ours.rms_norm_eps, theirs.config().rms_norm_eps, "{name}");
        assert_eq!(ours.tensor_specs(), theirs.config().tensor_specs(), "{name}");
        let values = file.weights(&ours).unwrap();
        let params = Params::from_vecs(&ours, values, DType::F32, &Device::Cpu).unwrap();
        assert_eq!(params.digest().unwrap(), theirs.params().digest().unwrap(), "{name}");
        let ours = Model::new(ours, params).unwrap();
        let ids = tokens(40, 3);
        let packed = PackedGroups::prompts([ids.as_slice()]);
        let logits = |model: &Model| {
            model.all_logits(&packed).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        assert_eq!(logits(&ours), logits(&theirs), "{name}");
    }
}

#[test]
fn every_type_of_block_is_near_what_was_stored() {
    let config = ModelConfig::from_value(
        json!({
            "model_type": "llama", "vocab_size": 320, "hidden_size": 256, "head_dim": 64,
            "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4,
            "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": true,
        }),
        Path::new("config.json"),
    )
    .unwrap();
    let values = |name: &str| {
        let spec = config.tensor_specs().into_iter().find(|spec| spec.name == name).unwrap();
        let wave = |i: usize| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) * 0.1;
        (0..spec.len()).map(wave).collect::<Vec<f32>>()
    };
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    // The largest error of a value as a share of the largest value: about half a step of each type.
    for (dtype, bound) in [
        (GgmlDType::F32, 0.0),
        (GgmlDType::F16, 5e-4),
        (GgmlDType::BF16, 4e-3),
        (GgmlDType::Q8_0, 5e-3),
        (GgmlDType::Q6K, 4e-2),
        (GgmlDType::Q5_0, 7e-2),
        (GgmlDType::Q5_1, 4e-2),
        (GgmlDType::Q5K, 4e-2),
        (GgmlDType::Q4_0, 0.15),
        (GgmlDType::Q4_1, 8e-2),
        (GgmlDType::Q4K, 8e-2),
        (GgmlDType::Q3K, 0.3),
        (GgmlDType::Q2K, 0.4),
    ] {
        Parts { dtype, ..Parts::new(&config, values) }.write(&path);
        let file = Gguf::open(&path).unwrap();
        let found = file.weights(&file.config().unwrap()).unwrap();
        for (spec, found) in config.tensor_specs().iter().zip(found) {
            let stored = values(&spec.name);
            let largest = stored.iter().fold(0f32, |m, x| m.max(x.abs()));
            let worst = stored.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= bound * largest, "{dtype:?} {}: {}", spec.name, worst / largest);
        }
    }
}

#[test]
fn a_file_saved_as_a_directory_is_the_same_policy() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    for name in ["llama3-untied-biased", "qwen3-tied"] {
        Parts::of(name).write(&path);
        let file = Policy::load(&path, DType::F32, &Device::Cpu).unwrap();
        // Saved once from the file, and once more from what was saved, as checkpoints are.
        let (first, second) = (home.path().join(name), home.path().join(format!("{name}-again")));
        file.save(&first, Dtype::F32).unwrap();
        let again = Policy::load(&first, DType::F32, &Device::Cpu).unwrap();
        again.save(&second, Dtype::F32).unwrap();
        let digest = |policy: &Policy| policy.model.params().digest().unwrap();
        let messages = [json!({"role": "user", "content": "Wetter in Zürich? 2024\n\n it's  42"})];
        let prompt = |policy: &Policy| policy.prompt_tokens(&messages, &[]).unwrap();
        for saved in [&first, &second] {
            let saved = Policy::load(saved, DType::F32, &Device::Cpu).unwrap();
            assert_eq!(digest(&saved), digest(&file));
            assert_eq!(prompt(&saved), prompt(&file));
            assert_eq!(saved.stop_tokens(), file.stop_tokens());
            assert_eq!(saved.model.config().rope, file.model.config().rope);
        }
        // <|endoftext|>, <|im_end|> and <|eot_id|>.
        assert_eq!(file.stop_tokens(), [0, 2, 8]);
        let text = file.completion_text(&[3, 4, 2]).unwrap();
        assert_eq!(text, "<tool_call></tool_call>");
    }
}

#[test]
fn the_tokenizer_is_that_of_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    Parts::of("qwen2-tied").write(&path);
    let ours = Source::open(&path).unwrap().tokenizer().unwrap();
    let theirs = Tokenizer::from_dir(&directory("qwen2-tied")).unwrap();
    let conversations = directory("../chat/conversations.json");
    let conversations = std::fs::read_to_string(conversations).unwrap();
    let odd = "<|im_start|>user\ncafé CAFE\u{301} 12345\t\r\n  it's 'TIS<tool_call>{}</tool_call>…";
    for text in conversations.lines().chain([odd, "", " "]) {
        let ids = ours.encode(text).unwrap();
        assert_eq!(ids, theirs.encode(text).unwrap(), "{text}");
        for special in [
            octet_policy::tokenizer::SpecialTokens::Keep,
            octet_policy::tokenizer::SpecialTokens::Skip,
        ] {
            assert_eq!(ours.decode(&ids, special).unwrap(), theirs.decode(&ids, special).unwrap());
        }
    }
}

#[test]
fn digits_are_split_as_each_kind_of_tokenizer_does() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    // With these merges a run of digits becomes one token, unless it was split before.
    let merges = ["1 2", "12 3", "123 4"].map(|merge| Meta::String(merge.into())).to_vec();
    for (kind, expected) in [
        ("qwen2", vec!["1", "2", "3", "4"]),
        ("smollm", vec!["1", "2", "3", "4"]),
        ("llama-bpe", vec!["123", "4"]),
        ("gpt-2", vec!["1234"]),
    ] {
        let mut parts =
            Parts::of("llama-tied").set("tokenizer.ggml.merges", Meta::Array(merges.clone()));
        for (key, value) in &mut parts.metadata {
            if let (true, Meta::Array(tokens)) = (key == "tokenizer.ggml.tokens", value) {
                // Three tokens of the fixture make room for those that the merges spell.
                for (at, token) in [(317, "12"), (318, "123"), (319, "1234")] {
                    tokens[at] = Meta::String(token.into());
                }
            }
        }
        parts.set("tokenizer.ggml.pre", Meta::String(kind.into())).write(&path);
        let tokenizer = Source::open(&path).unwrap().tokenizer().unwrap();
        let ids = tokenizer.encode("1234").unwrap();
        let found: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap()).collect();
        assert_eq!(found, expected, "{kind}");
    }
}

#[test]
fn what_is_not_computed_is_refused_by_name() {
    let parts = Parts::of("llama-tied");
    let text = |text: &str| Meta::String(text.into());
    for (changed, words) in [
        (parts.clone().set("general.architecture", text("gemma3")), vec!["gemma3", "qwen3"]),
        (parts.clone().without("general.architecture"), vec!["general.architecture"]),
        (parts.clone().set("llama.rope.scaling.type", text("yarn")), vec!["yarn", "llama3"]),
        (
            parts.clone().set("llama.rope.dimension_count", Meta::U32(4)),
            vec!["dimension_count", "8"],
        ),
        (parts.clone().set("llama.expert_count", Meta::U32(8)), vec!["expert_count", "8"]),
        (parts.clone().set("llama.block_count", text("two")), vec!["block_count", "string"]),
        (parts.clone().set("llama.attention.head_count", Meta::U32(0)), vec!["head"]),
        (
            parts.clone().set("llama.block_count", Meta::U32(3)),
            vec!["blk.2.attn_q.weight", "missing"],
        ),
        (
            parts.clone().set("llama.block_count", Meta::U32(1)),
            vec!["blk.1.attn_q.weight", "unexpected"],
        ),
        (
            parts.clone().set("llama.feed_forward_length", Meta::U32(47)),
            vec!["ffn_up", "shape", "47"],
        ),
        (parts.clone().without("blk.0.ffn_up.weight"), vec!["blk.0.ffn_up.weight", "missing"]),
        (parts.clone().without("token_embd.weight"), vec!["token_embd.weight"]),
        (parts.clone().set("tokenizer.ggml.model", text("llama")), vec!["gpt2", "Hugging Face"]),
        (parts.clone().set("tokenizer.ggml.pre", text("tekken")), vec!["tekken", "smollm"]),
        (parts.clone().set("tokenizer.ggml.eos_token_id", Meta::U32(320)), vec!["320"]),
        (parts.clone().set("tokenizer.ggml.merges", Meta::Array(vec![text("ab")])), vec!["merge"]),
        (parts.clone().set("tokenizer.ggml.token_type", Meta::Array(vec![])), vec!["token_type"]),
        (
            parts.clone().without("tokenizer.chat_template"),
            vec!["chat template", "octet model import"],
        ),
        (
            Parts::of("llama3-untied-biased").set("llama.rope.freq_base", Meta::F32(7.0)),
            vec!["rope_freqs.weight"],
        ),
    ] {
        let error = refused(&changed);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?}: {error}");
    }
}

#[test]
fn what_is_damaged_is_refused_and_never_panics() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("model.gguf");
    let whole = Parts::of("qwen2-tied").bytes();
    let open = |bytes: &[u8]| {
        std::fs::write(&path, bytes).unwrap();
        Policy::load(&path, DType::F32, &Device::Cpu).map(|_| ()).map_err(|e| e.to_string())
    };
    open(&whole).unwrap();
    // The last tensor ends with the file, but for padding.
    for length in (0..whole.len() - 64).step_by(977).chain([4, 8, 24, 25]) {
        let error = open(&whole[..length]).unwrap_err();
        assert!(error.contains("model.gguf"), "{error}");
    }
    let error = open(&whole[..whole.len() / 2]).unwrap_err();
    assert!(error.contains("copy or download it again"), "{error}");
    let header = whole.windows(8).position(|w| w == b"blk.1.at").unwrap();
    let error = open(&whole[..header]).unwrap_err();
    assert!(error.contains("copy or download it again") || error.contains("header"), "{error}");
    // Any byte of the header may be wrong; some changes are harmless.
    let mut state = 1u32;
    for _ in 0..400 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut changed = whole.clone();
        changed[(state as usize >> 3) % header] ^= (state >> 24) as u8 | 1;
        drop(open(&changed));
    }
    let aligned = |to| Parts::of("qwen2-tied").set("general.alignment", Meta::U32(to)).bytes();
    for alignment in [0, 33] {
        let error = open(&aligned(alignment)).unwrap_err();
        assert!(error.contains("alignment") && error.contains(&alignment.to_string()), "{error}");
    }
    open(&aligned(32)).unwrap();
}

#[test]
fn a_path_that_is_neither_is_told_what_it_is() {
    let home = tempfile::tempdir().unwrap();
    let refused = |name: &str, content: &[u8]| {
        let path = home.path().join(name);
        std::fs::write(&path, content).unwrap();
        Source::open(&path).unwrap_err().to_string()
    };
    let error = refused("model.bin", b"PK\x03\x04");
    assert!(error.contains("model.bin") && error.contains("pickled"), "{error}");
    let error = refused("model.safetensors", b"\x10\0\0\0\0\0\0\0{}");
    assert!(error.contains("give the directory"), "{error}");
    let error = refused("model.gguf", b"<html>");
    assert!(error.contains("neither"), "{error}");
    let error = Source::open(home.path()).unwrap_err().to_string();
    assert!(error.contains("model.gguf; name such a file"), "{error}");
}
