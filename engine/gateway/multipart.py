"""A multipart form that is read while it comes: small fields are kept, one file's bytes are handed on.

Constant memory; knows no route. The parsing itself is python-multipart's.
"""

from __future__ import annotations

from email.message import Message

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from engine.model.errors import InvalidSpec

LONGEST_FIELD = 4096
MOST_FIELDS = 20
LONGEST_HEADER = 1000
"""Taking a header's parameters apart takes the square of its length: a long one would stop everybody's requests."""


class Form:
    """One form.

    Attributes:
        fields: those that came whole.
        file: bytes of the file that came and were not taken yet.
        has_file: whether its part began; `file_ended`: whether it came whole.
    """

    def __init__(self, content_type: str, file_field: str) -> None:
        """`content_type`: of the request.

        Raises:
            InvalidSpec: it is no multipart form.
        """
        self.fields: dict[str, str] = {}
        self.file = bytearray()
        self.has_file = False
        self.file_ended = False
        self.is_over = False
        self._file_field = file_field
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._header, self._header_value = bytearray(), bytearray()
        self._disposition = ""
        head = Message()
        head["content-type"] = content_type if len(content_type) <= LONGEST_HEADER else ""
        boundary = head.get_param("boundary")
        if head.get_content_type() != "multipart/form-data" or not isinstance(boundary, str) or not boundary:
            raise InvalidSpec(
                "send a form (multipart/form-data): curl -F file=@model.gguf -F name=my-model -F deployment_id=dep_…",
                measured=content_type[:200],
            )
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1", errors="replace"),
                {
                    "on_part_begin": self._part_begin,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": self._part_data,
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as err:
            raise InvalidSpec(f"the form's boundary cannot be: {err}") from err

    def feed(self, chunk: bytes) -> None:
        """Take the next piece of the body.

        Raises:
            InvalidSpec: it is no form, or has what a form here must not have.
        """
        if self.is_over:
            return
        try:
            self._parser.write(chunk)
        except FormParserError as err:
            raise InvalidSpec(f"the body is no multipart form: {err}") from err

    def take(self) -> bytearray:
        """The file's bytes that came since the last time."""
        taken, self.file = self.file, bytearray()
        return taken

    def _part_begin(self) -> None:
        self._name, self._disposition, self._is_file = "", "", False
        self._value = bytearray()

    def _header_end(self) -> None:
        if self._header.decode("latin-1").strip().lower() == "content-disposition":
            self._disposition = self._header_value.decode(errors="replace")
        self._header, self._header_value = bytearray(), bytearray()

    def _headers_finished(self) -> None:
        if len(self._disposition) > LONGEST_HEADER:
            raise InvalidSpec(f"a part of the form has a Content-Disposition of more than {LONGEST_HEADER} characters")
        head = Message()
        head["content-disposition"] = self._disposition
        name = head.get_param("name", header="content-disposition")
        self._name = name if isinstance(name, str) else ""
        if not self._name:
            raise InvalidSpec("a part of the form has no name")
        self._is_file = self._name == self._file_field
        if self._is_file and self.has_file:
            raise InvalidSpec(f"the form has several files named {self._file_field}: send one at a time")
        if self._name in self.fields or len(self.fields) >= MOST_FIELDS:
            raise InvalidSpec(f"the form has the field {self._name[:100]} twice, or more than {MOST_FIELDS} fields")
        self.has_file = self.has_file or self._is_file

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self.file += memoryview(data)[start:end]
            return
        self._value += data[start:end]
        if len(self._value) > LONGEST_FIELD:
            raise InvalidSpec(
                f"the field {self._name[:100]} has more than {LONGEST_FIELD} bytes", field=self._name[:100]
            )

    def _part_end(self) -> None:
        if self._is_file:
            self.file_ended = True
        else:
            self.fields[self._name] = self._value.decode(errors="replace").replace("\0", "\ufffd").strip()

    def _end(self) -> None:
        self.is_over = True
