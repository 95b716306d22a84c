"""`growkit push`: a finished folder to the Hugging Face hub."""

from typing import TYPE_CHECKING, Annotated

from growkit.api import words as w
from growkit.api.option import Argument, Option
from growkit.api.public import public

if TYPE_CHECKING:
    from growkit.hub.push import Pushed

WHERE, WHAT = "Where", "What"


@public
def push(
    folder: Annotated[
        w.PathLike,
        Argument(
            "A finished checkpoint, small module, skill, application, bundle of skills, control panel, delta, data set or"
            " teacher's store.",
            "FOLDER",
        ),
    ],
    repo: Annotated[str, Argument("A repository of the hub; it is made where it is missing.", "OWNER/NAME")],
    *,
    private: Annotated[bool, Option(help="Make the repository private.", panel=WHERE)] = False,
    revision: Annotated[
        str | None, Option(help="A branch that is there; default main.", panel=WHERE, metavar="BRANCH")
    ] = None,
    message: Annotated[str | None, Option(help="What the commit says.", panel=WHERE, metavar="TEXT")] = None,
    optimizer: Annotated[bool, Option(help="AdamW's state too.", panel=WHAT)] = False,
    replace: Annotated[
        bool, Option(help="Delete what the repository holds beyond the folder's files.", panel=WHAT)
    ] = False,
    dry_run: Annotated[bool, Option(help="List what would go where, and ask the hub nothing.", panel=WHAT)] = False,
) -> "Pushed":
    """Push a finished folder to the Hugging Face hub.

    folder: what a command made, or a checkpoint of anybody's. repo: OWNER/NAME; of a data set or a store it is a
    repository of data. Hidden files stay, and so does AdamW's state unless optimizer asks for it. Who you are is the
    hub client's to know: hf auth login, or HF_TOKEN.

    Returns a Pushed: .repo, .url (None of a dry run), .what with .files and .left_out. Raises RequestError for what
    cannot be pushed and for what the hub refuses, CheckpointError for a damaged folder.
    """
    from growkit.hub.push import push as send

    return send(
        folder, repo, private=private, revision=revision, message=message, optimizer=optimizer, replace=replace,
        dry_run=dry_run,
    )  # fmt: skip
