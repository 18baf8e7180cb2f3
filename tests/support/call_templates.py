"""Chat templates that print tools and calls, in the manner of published ones."""

from __future__ import annotations

#: Mistral's kind: a list behind a control token, with ids of nine letters and digits.
LISTED = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.role == 'user' -%}
{%- if loop.last or tools and loop.first and tools is not none -%}
{%- if tools -%}{{- '[AVAILABLE_TOOLS] ' + tools | tojson + '[/AVAILABLE_TOOLS]' -}}{%- endif -%}
{%- endif -%}
{{- '[INST] ' + m.content + '[/INST]' -}}
{%- elif m.role == 'assistant' -%}
{%- if m.tool_calls -%}
{{- '[TOOL_CALLS] [' -}}
{%- for c in m.tool_calls -%}
{%- if c.id | length != 9 -%}{{- raise_exception('ids have nine letters') -}}{%- endif -%}
{{- '{"name": "' + c.function.name + '", "arguments": ' + c.function.arguments | tojson -}}
{{- ', "id": "' + c.id + '"}' -}}
{%- if not loop.last -%}{{- ', ' -}}{%- endif -%}
{%- endfor -%}
{{- ']' + eos_token -}}
{%- else -%}
{{- ' ' + m.content + eos_token -}}
{%- endif -%}
{%- elif m.role == 'tool' -%}
{{- '[TOOL_RESULTS] {"content": ' + m.content | tojson + '}[/TOOL_RESULTS]' -}}
{%- endif -%}
{%- endfor -%}
"""

#: Llama 3.1's kind: a call is a bare JSON object and all of the answer; one at a time.
BARE = """\
{{- bos_token -}}
{%- for m in messages -%}
{%- if m.tool_calls -%}
{%- if m.tool_calls | length != 1 -%}{{- raise_exception('one call at a time') -}}{%- endif -%}
{%- set call = m.tool_calls[0].function -%}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}<|eot_id|>' -}}
{%- else -%}
{%- set role = 'ipython' if m.role == 'tool' else m.role -%}
{{- '<|start_header_id|>' + role + '<|end_header_id|>\\n\\n' -}}
{%- if loop.first and tools -%}
{%- for t in tools -%}{{- t | tojson(indent=4) + '\\n\\n' -}}{%- endfor -%}{%- endif -%}
{{- m.content | trim + '<|eot_id|>' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}
"""

#: DeepSeek's kind: the name stands bare, the arguments in a fence, between control tokens.
FENCED = (
    """\
{{- bos_token -}}
{%- if tools -%}{{- '# Tools' -}}
{%- for t in tools -%}{{- '\\n' + t | tojson -}}{%- endfor -%}{{- '\\n\\n' -}}{%- endif -%}
{%- for m in messages -%}
{%- if m.role == 'user' -%}{{- '<:User:>' + m.content + '<:Assistant:>' -}}
{%- elif m.role == 'assistant' -%}
{{- m.content -}}
{%- for c in m.tool_calls or [] -%}
{{- '<:tool~calls~begin:>' if loop.first else '\\n' -}}
{{- '<:tool~call~begin:>function<:tool~sep:>' + c.function.name + '\\n```json\\n' -}}
{{- c.function.arguments | tojson + '\\n```<:tool~call~end:>' -}}
{{- '<:tool~calls~end:>' if loop.last -}}
{%- endfor -%}
{{- '<:end~of~sentence:>' -}}
{%- elif m.role == 'tool' -%}
{{- '<:tool~outputs~begin:><:tool~output~begin:>' + m.content -}}
{{- '<:tool~output~end:><:tool~outputs~end:>' -}}
{%- endif -%}
{%- endfor -%}
""".replace("<:", "<\uff5c")
    .replace(":>", "\uff5c>")
    .replace("~", "\u2581")
)

#: A call whose arguments are no JSON: it cannot be parsed back.
TAGGED = """\
{%- for m in messages -%}
{{- '<|im_start|>' + m.role + '\\n' -}}
{%- if loop.first and tools -%}{%- for t in tools -%}{{- t | tojson + '\\n' -}}{%- endfor -%}{%- endif -%}
{{- m.content -}}
{%- for c in m.tool_calls or [] -%}
{{- '<function=' + c.function.name + '>' -}}
{%- for k, v in c.function.arguments | items -%}
{{- '<parameter=' + k + '>' + v | string + '</parameter>' -}}{%- endfor -%}
{{- '</function>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""
