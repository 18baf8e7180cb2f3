"""Chat templates in the manner of published ones, for what the shipped templates do not do."""

from __future__ import annotations

#: gpt-oss's kind: thoughts and answers in channels; the thoughts of earlier answers are left out, and an
#: earlier answer ends with another token than the last one.
HARMONY = """\
{%- set last = namespace(user=-1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{{- '<|start|>system<|message|>You are a chat model.\\nReasoning: ' + reasoning_effort|default('medium') -}}
{{- '\\n# Valid channels: analysis, final.<|end|>' -}}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- if m.thinking is defined and loop.index0 > last.user -%}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' -}}
{%- endif -%}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content -}}
{{- '<|return|>' if loop.last else '<|end|>' -}}
{%- elif m.role == 'system' -%}
{{- '<|start|>developer<|message|># Instructions\\n\\n' + m.content + '<|end|>' -}}
{%- elif m.role == 'user' -%}
{{- '<|start|>user<|message|>' + m.content + '<|end|>' -}}
{%- else -%}
{{- raise_exception('unknown role ' + m.role) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start|>assistant' -}}{%- endif -%}
"""

#: R1's kind: the prompt opens a think block, and what stood before its end is left out of earlier answers.
OPENED = """\
{%- for m in messages -%}
{%- set content = m.content.split('</think>')[-1].lstrip('\\n')
    if m.role == 'assistant' and not loop.last else m.content -%}
{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n<think>\\n' -}}{%- endif -%}
"""

#: Qwen 3's kind: reasoning has a key and a block of its own, and a variable has the prompt close the block.
SWITCHED = """\
{%- set last = namespace(user=-1) -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{%- set last.user = loop.index0 -%}{%- endif -%}
{%- endfor -%}
{%- if effort is defined -%}{{- 'Effort: ' + effort + '\\n' -}}{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set content = m.content -%}
{%- set reasoning = m.reasoning_content if m.reasoning_content is string else '' -%}
{%- if not reasoning and '</think>' in content -%}
{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') -%}
{%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
{%- endif -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if loop.index0 > last.user -%}{{- '<think>\\n' + reasoning + '\\n</think>\\n\\n' -}}{%- endif -%}
{{- content + '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}
{{- '<think>\\n\\n</think>\\n\\n' -}}
{%- endif -%}
{%- endif -%}
"""

#: R1's template as it is published: a block is left out of the last answer, too.
DROPPED = OPENED.replace(" and not loop.last", "")

#: DeepSeek-V3.1's kind: history holds a closing marker alone, and a variable decides what the prompt has.
HALF = """\
{%- if thinking is not defined -%}{%- set thinking = false -%}{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'assistant' -%}
{%- set content = m.content.split('</think>', 1)[1] if '</think>' in m.content else m.content -%}
{{- '<|assistant|></think>' + content + '<|end|>' -}}
{%- else -%}
{{- '<|' + m.role + '|>' + m.content -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|assistant|>' + ('<think>' if thinking else '</think>') -}}{%- endif -%}
"""

#: Qwen 3's later kind: as SWITCHED, but the prompt opens the block whatever follows.
ALWAYS = SWITCHED.rpartition("{%- if enable_thinking")[0] + "{{- '<think>\\n' -}}\n{%- endif -%}\n"
