"""The adapters of one loaded model by name, and its drafter. Knows folders and names; no request."""

from pathlib import Path

from trimode.errors import InvalidInput
from trimode.models.adapters import Adapter
from trimode.models.transformer import Transformer


class AdapterSet:
    """Domain adapters that requests choose by name, and at most one drafter, which serves them all."""

    def __init__(self, model: Transformer) -> None:
        self.model = model
        self.named: dict[str, Adapter] = {}
        self.drafter: Adapter | None = None

    @property
    def is_empty(self) -> bool:
        return not self.named and self.drafter is None

    def load(self, folder: str | Path, name: str | None = None) -> str:
        """Read a domain adapter; its name, by default the folder's. Raises InvalidInput for a name that is taken, or a
        draft adapter."""
        adapter = self._read(folder)
        adapter.name = adapter.name if name is None else name
        if not adapter.name or adapter.name in self.named:
            raise InvalidInput(f"adapter name is {adapter.name!r}, allowed is a text that none of the loaded ones has")
        if adapter.draft:
            raise InvalidInput(
                f"{folder} is a draft adapter, made for the rows of drafts alone: load it as the drafter"
            )
        self.named[adapter.name] = adapter
        return adapter.name

    def load_drafter(self, folder: str | Path) -> None:
        """Read an adapter for the rows of drafts, in place of the one before."""
        self.drafter = self._read(folder, draft=True)

    def unload(self, name: str) -> None:
        """Forget an adapter; requests that run with it go on with it. Raises InvalidInput for an unknown name."""
        self.get(name)
        del self.named[name]

    def get(self, name: str | None) -> Adapter | None:
        """By name; None for None. Raises InvalidInput for an unknown one."""
        if name is None:
            return None
        if not isinstance(name, str) or name not in self.named:
            loaded = ", ".join(self.named) or "none"
            raise InvalidInput(f"adapter is {name!r}, loaded are: {loaded}")
        return self.named[name]

    def _read(self, folder: str | Path, draft: bool | None = None) -> Adapter:
        adapter = Adapter.load(folder, self.model.config, draft)
        return adapter.to(self.model.device, self.model.dtype).eval().requires_grad_(False)
