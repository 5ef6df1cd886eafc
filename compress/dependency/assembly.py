"""The assembly: the grouping that follows from families of labels."""

from __future__ import annotations

from collections import defaultdict

from compress.dependency.attributes import Dimensions, attributes, widths_read
from compress.dependency.families import Families
from compress.dependency.group import Group, Grouping, Product, Slice
from compress.dependency.labels import Reasons
from compress.dependency.sizes import Modules
from compress.dependency.ties import tied_parts
from compress.dependency.widths import Widths


def assemble(families: Families, dimensions: Dimensions, modules: Modules) -> tuple[Grouping, Reasons]:
    """Collect what follows from the families: slices of tensors, ties, sizes in products and attributes.

    Args:
        dimensions: those that the pass of the whole network saw.
        modules: those of the whole network, by name.

    Returns:
        The grouping, and the labels of groups that have to stay equally wide and cannot, with the reason.
    """
    traced, widths = families.traced, Widths(families)
    ties, untied = tied_parts(families)
    read, ties, wrong = widths_read(dimensions, widths, ties, modules)
    slices: dict[int, list[Slice]] = defaultdict(list)
    for (name, dim), ids in traced.dims.items():
        module, _, tensor = name.rpartition(".")
        for i, at, units in widths.place(ids):
            slices[i].append(Slice(module, tensor, dim, at, units))
    groups = []
    for i, family in enumerate(families.each):
        normalized = traced.labels.why_normalized(int(family.members[0]))
        width = len(family.members)
        groups.append(Group(family.name, width, tuple(slices[i]), family.kind, normalized, ties.first.get(i)))
    products = tuple(Product(n, tuple(widths.of(*sized) for sized in factors)) for n, factors in traced.record.products)
    found = tuple(attributes(dimensions, read, widths, modules))
    return Grouping(tuple(groups), families.whole, products, found), untied | wrong
