"""Components: resources of the program's own that only hold others."""

from __future__ import annotations

import pulumi

from tests.fakes.scenario import Account, Group, Program, Scenario, Thing


class Site(pulumi.ComponentResource):
    """A component with inputs of its own."""

    address: pulumi.Output[str]

    def __init__(self, name: str, size: int = 1, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("lab:index:Site", name, {"size": size}, opts)
        self.web = Thing(f"{name}-web", {"size": size}, pulumi.ResourceOptions(parent=self))
        self.address = self.web.address
        self.register_outputs({"address": self.address})


def site(size: int = 1, **options: object) -> Program:
    return lambda: pulumi.export("address", Site("s", size, pulumi.ResourceOptions(**options)).address)


def test_life_of_a_component(scenario: Scenario) -> None:
    run = scenario.up(site())
    assert run.result.succeeded, run.errors
    component = run.state("s")
    assert not component.custom and not component.id and not component.provider
    assert component.inputs == {"size": 1} and component.outputs == {"address": run.result.outputs["address"]}
    assert run.state("s-web").parent == component.urn
    assert run.state("s-web").urn == "urn:pulumi:dev::lab::lab:index:Site$fake:index:Thing::s-web"
    assert scenario.up(site()).entries == []
    run = scenario.up(site(2))
    assert run.ops["s"] == ["update"] and run.ops["s-web"] == ["update"]
    run = scenario.up(lambda: None)
    assert not run.has("s") and not scenario.cloud.things


def test_deleted_after_its_children(scenario: Scenario) -> None:
    scenario.up(site())
    order = [name for _, name in scenario.destroy().order]
    assert order.index("s-web") < order.index("s") < order.index("lab-dev")


def test_failing_child(scenario: Scenario) -> None:
    scenario.cloud.fail("create", "s-web", "no capacity")
    run = scenario.up(site())
    assert not run.result.succeeded and run.has("s") and not run.has("s-web")
    assert not run.state("s").outputs
    run = scenario.up(site())
    assert run.result.succeeded and run.ops["s"] == ["same"] and run.ops["s-web"] == ["create"]
    assert "address" in run.state("s").outputs


def test_children_get_its_providers(scenario: Scenario) -> None:
    def program() -> None:
        account = Account("acc", {"token": "t"})
        Site("s", opts=pulumi.ResourceOptions(providers=[account]))

    run = scenario.up(program)
    assert run.state("s-web").provider.startswith(run.state("acc").urn)


def test_depending_on_a_component_is_depending_on_its_children(scenario: Scenario) -> None:
    def program() -> None:
        first = Site("s")
        Thing("after", {}, pulumi.ResourceOptions(depends_on=[first]))

    run = scenario.up(program)
    assert run.state("s-web").urn in run.state("after").dependencies
    order = [name for op, name in run.order if op == "create"]
    assert order.index("s-web") < order.index("after")
    order = [name for _, name in scenario.destroy().order]
    assert order.index("after") < order.index("s-web")


def test_component_in_a_component(scenario: Scenario) -> None:
    def program() -> None:
        outer = Group("outer")
        Site("s", opts=pulumi.ResourceOptions(parent=outer))

    run = scenario.up(program)
    assert run.state("s-web").urn.endswith("fake:index:Group$lab:index:Site$fake:index:Thing::s-web")


def test_moved_into_a_component_with_an_alias(scenario: Scenario) -> None:
    scenario.up(lambda: (Thing("web"), None)[1])
    made = scenario.cloud.made("web")[0].id

    def program() -> None:
        group = Group("g")
        alias = pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)
        Thing("web", {}, pulumi.ResourceOptions(parent=group, aliases=[alias]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.ops["web"] == ["same"] and run.state("web").id == made and run.state("web").parent == run.state("g").urn


def test_children_move_with_the_alias_of_their_parent(scenario: Scenario) -> None:
    scenario.up(site())

    def renamed() -> None:
        class Place(pulumi.ComponentResource):
            def __init__(self) -> None:
                alias = pulumi.Alias(type_="lab:index:Site", name="s")
                super().__init__("lab:index:Place", "p", {"size": 1}, pulumi.ResourceOptions(aliases=[alias]))
                Thing("s-web", {"size": 1}, pulumi.ResourceOptions(parent=self))
                self.register_outputs({})

        Place()

    run = scenario.up(renamed)
    assert run.result.succeeded, run.errors
    assert run.ops["s-web"] == ["same"] and len(scenario.cloud.things) == 1


def test_component_that_becomes_a_custom_resource_is_replaced(scenario: Scenario) -> None:
    def custom(is_custom: bool) -> Program:
        def program() -> None:
            if is_custom:
                Thing("x")
            else:
                pulumi.ComponentResource("fake:index:Thing", "x", {}, None)

        return program

    scenario.up(custom(False))
    run = scenario.up(custom(True))
    assert run.result.succeeded, run.errors
    assert run.ops["x"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.state("x").custom and len(scenario.cloud.things) == 1


def test_protected_component(scenario: Scenario) -> None:
    scenario.up(site(protect=True))
    run = scenario.up(lambda: None)
    assert not run.result.succeeded and "cannot be deleted" in run.errors
    assert run.has("s")


def test_preview_knows_the_outputs_that_are_known(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        group.register_outputs({"plain": 1, "later": Thing("a").address})

    run = scenario.preview(program)
    assert run.result.succeeded, run.errors
    shown = run.metadata("::g", "resOutputsEvent")[-1]["new"]["outputs"]
    assert shown == {"plain": 1, "later": "04da6b54-80e4-46f7-96ec-b56ff0331ba9"}
