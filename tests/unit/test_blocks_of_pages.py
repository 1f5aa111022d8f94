"""tests/pages reads blocks as GitHub does."""

from __future__ import annotations

from tests.pages import Block, blocks, shape, steps
from tests.unit.test_documentation import commands

PAGE = """\
# A page

```sh
make test
```

<!-- not run: it needs a VM -->
```console
$ ls
a
```

- in a list

  ```python
  # plugin.py
  if True:
      pass
  ```
"""


def test_blocks_of_a_page() -> None:
    assert list(blocks("page.md", PAGE)) == [
        Block("page.md", 4, "sh", "", "make test\n"),
        Block("page.md", 9, "console", "not run: it needs a VM", "$ ls\na\n"),
        Block("page.md", 16, "python", "", "# plugin.py\nif True:\n    pass\n"),
    ]
    assert [block.reason for block in blocks("page.md", PAGE)] == ["", "it needs a VM", ""]
    assert [block.file for block in blocks("page.md", PAGE)] == ["", "", "plugin.py"]


def test_a_comment_counts_only_right_before_its_block() -> None:
    (block,) = blocks("page.md", "<!-- not run: no -->\n\n```sh\nls\n```\n")
    assert block.comment == ""


CONSOLE = """\
$ echo a \\
    b
a b
$ true
"""


def test_steps_of_a_console_block() -> None:
    assert steps(CONSOLE) == [("echo a \\\n    b", "a b\n"), ("true", "")]


def test_shape_hides_numbers_and_widths() -> None:
    assert shape("Used   12.5 MiB\n────\n") == shape("Used 3.25   MiB\n──────────\n")


def test_commands_of_a_script() -> None:
    script = "qgactl ls \\\n  -l | tar -t >out 2>&1; echo 'a b'  # a comment\n"
    assert commands(script) == [["qgactl", "ls", "-l"], ["tar", "-t", "2"], ["echo", "a b"]]
