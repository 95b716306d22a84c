"""Chat templates of ten well-known shapes, tiny tokenizers for them, and what each makes of a conversation, said once
more by hand: pieces of text, and whether the assistant says them."""

import json
from pathlib import Path

from texts import bpe, wrap
from tokenizers import pre_tokenizers

from growkit.data.chats.answers import Answers
from growkit.data.chats.chat_template import ChatTemplate

FOLDER = Path(__file__).parent / "chat_templates"
CHATML = ["<|im_start|>", "<|im_end|>"]
METASPACE = pre_tokenizers.Metaspace()
SPECIAL = {  # template -> (its special tokens, the one that ends texts, those that generation stops at)
    "chatml": (CHATML, "<|im_end|>", ["<|im_end|>"]),
    "llama3": (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<end>"], "<end>", ["<end>", "<|eot_id|>"]),
    "mistral": (["[INST]", "[/INST]", "</s>"], "</s>", ["</s>"]),
    "gemma": (["<start_of_turn>", "<end_of_turn>", "<eos>"], "<eos>", ["<eos>", "<end_of_turn>"]),
    "phi": (["<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<end>"], "<end>", ["<end>", "<|end|>"]),
    "qwen": ([*CHATML, "<think>", "</think>", "<tool_call>", "</tool_call>"], "<|im_end|>", ["<|im_end|>"]),
    "zephyr": (["</s>"], "</s>", ["</s>"]),
    "vicuna": (["</s>"], "</s>", ["</s>"]),
    "granite": (["<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"], "<|end_of_text|>", ["<|end_of_text|>"]),
    "deepseek": (
        [
            "<|User|>",
            "<|Assistant|>",
            "<|end▁of▁sentence|>",
            "<think>",
            "<|tool▁call▁begin|>",
            "<|tool▁call▁end|>",
        ],
        "<|end▁of▁sentence|>",
        ["<|end▁of▁sentence|>"],
    ),
}
SYSTEMS = set(SPECIAL) - {"gemma"}
TOOLS = {"llama3", "qwen", "deepseek"}
THOUGHTS = {"qwen", "deepseek"}


def tokenizer(name: str):
    """A tokenizer with a template: of bytes, or of words with a space before them."""
    special, end, _ = SPECIAL[name]
    made = wrap(
        bpe(pre_tokenizer=METASPACE) if name in ("mistral", "vicuna") else bpe(), eos_token=end, bos_token="<s>"
    )
    made.add_special_tokens({"additional_special_tokens": special})
    made.chat_template = (FOLDER / f"{name}.jinja").read_text("utf-8")
    return made


def answers(name: str, made=None) -> Answers:
    """What reads conversations by a template."""
    made = made or tokenizer(name)
    stops = frozenset(made.convert_tokens_to_ids(SPECIAL[name][2]))
    return Answers(ChatTemplate(tokenizer=made, own=None, stops=stops, where="a test"))


def pieces(name: str, messages: list[dict], tools: list[dict]) -> list[tuple[str, bool]]:
    """(text, whether the assistant says it) of a conversation: the slow reference."""
    return globals()[f"_{name}"](messages, tools)


def _turns(messages, before, after):
    """Templates that put the same words around every turn."""
    for message in messages:
        told = message["role"] == "assistant"
        yield before(message["role"]), False
        yield message["content"], told
        yield after.rstrip("\n"), told
        yield "\n" * after.count("\n"), False


def _chatml(messages, _):
    return [*_turns(messages, lambda role: f"<|im_start|>{role}\n", "<|im_end|>\n")]


def _zephyr(messages, _):
    return [*_turns(messages, lambda role: f"<|{role}|>\n", "</s>\n")]


def _phi(messages, _):
    return [*_turns(messages, lambda role: f"<|{role}|>\n", "<|end|>\n"), ("<end>", False)]


def _granite(messages, _):
    said = [*_turns(messages, lambda role: f"<|start_of_role|>{role}<|end_of_role|>", "<|end_of_text|>\n")]
    own = "<|start_of_role|>system<|end_of_role|>You are Granite.<|end_of_text|>\n"
    return said if messages[0]["role"] == "system" else [(own, False), *said]


def _gemma(messages, _):
    named = [{"role": m["role"], "content": m["content"].strip()} for m in messages]
    names = {"assistant": "model"}
    return [("<s>", False), *_turns(named, lambda role: f"<start_of_turn>{names.get(role, role)}\n", "<end_of_turn>\n")]


def _llama3(messages, tools):
    said = [("<s>", False)]
    if tools:
        said += [
            (
                "<|start_header_id|>system<|end_header_id|>\n\nTools: " + "".join(map(as_json, tools)) + "<|eot_id|>",
                False,
            )
        ]
    for message in messages:
        told, role = message["role"] == "assistant", message["role"].replace("tool", "ipython")
        said += [(f"<|start_header_id|>{role}<|end_header_id|>\n\n", False)]
        if message.get("tool_calls"):
            call = message["tool_calls"][0]["function"]
            said += [(f'{{"name": "{call["name"]}", "parameters": {as_json(call["arguments"])}}}', True)]
        else:
            said += [(message["content"].strip(), told)]
        said += [("<|eot_id|>", told)]
    return said


def _mistral(messages, _):
    system = messages[0]["content"] + "\n\n" if messages[0]["role"] == "system" else ""
    said, turns = [("<s>", False)], [m for m in messages if m["role"] != "system"]
    for number, message in enumerate(turns):
        if message["role"] == "user":
            said += [("[INST] " + system * (number + 2 > len(turns)) + message["content"] + "[/INST]", False)]
        else:
            said += [(" " + message["content"].strip() + "</s>", True)]
    return said


def _vicuna(messages, _):
    said = []
    for message in messages:
        if message["role"] == "assistant":
            said += [("ASSISTANT:", False), (" " + message["content"] + "</s>", True)]
        else:
            said += [("USER: " * (message["role"] == "user") + message["content"] + " ", False)]
    return said


def _qwen(messages, tools):
    said, last = [], max(n for n, m in enumerate(messages) if m["role"] == "user")
    if tools:
        said += [("<|im_start|>system\n" + "".join(as_json(tool) + "\n" for tool in tools) + "<|im_end|>\n", False)]
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            said += [(f"<|im_start|>user\n<tool_response>\n{message['content']}\n</tool_response><|im_end|>\n", False)]
        elif message["role"] != "assistant":
            said += [(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n", False)]
        else:
            content, thoughts = message.get("content") or "", message.get("reasoning_content") or ""
            if "</think>" in content:
                thoughts, content = content.split("</think>")
                thoughts, content = thoughts.split("<think>")[-1].strip("\n"), content.lstrip("\n")
            calls = [call["function"] for call in message.get("tool_calls") or []]
            words = [
                f'<tool_call>\n{{"name": "{c["name"]}", "arguments": {as_json(c["arguments"])}}}\n</tool_call>'
                for c in calls
            ]
            text = "\n".join([content] * bool(content or not calls) + words)
            if number > last and (number == len(messages) - 1 or thoughts):
                thoughts = thoughts.strip("\n")
                text = f"<think>\n{thoughts}\n</think>\n\n" + text.lstrip("\n")
            said += [("<|im_start|>assistant\n", False), (text + "<|im_end|>", True), ("\n", False)]
    return said


def _deepseek(messages, _):
    said = [("<s>", False)]
    for message in messages:
        if message["role"] == "assistant":
            said += [("<|Assistant|>", False)]
            if message.get("tool_calls"):
                calls = [call["function"] for call in message["tool_calls"]]
                words = "".join(
                    f"<|tool▁call▁begin|>{c['name']}\n```json\n{as_json(c['arguments'])}\n```<|tool▁call▁end|>"
                    for c in calls
                )
            else:
                words = message["content"].split("</think>")[-1]
            said += [(words + "<|end▁of▁sentence|>", True)]
        elif message["role"] == "tool":
            said += [(f"<|tool▁output▁begin|>{message['content']}<|tool▁output▁end|>", False)]
        else:
            said += [("<|User|>" * (message["role"] == "user") + message["content"], False)]
    return said


def as_json(value) -> str:
    return json.dumps(value, ensure_ascii=False)
