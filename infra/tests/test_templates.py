"""The rules hold, and each of them can fail: every rule has at least one mutation that it must catch."""

import pytest
from rules import RULES
from templates import Templates


@pytest.fixture(scope="session")
def templates():
    return Templates.load()


@pytest.mark.parametrize("name", RULES)
def test_rule(templates, name):
    RULES[name](templates)


MUTATIONS = []


def mutation(rule):
    def add(change):
        MUTATIONS.append(pytest.param(rule, change, id=f"{rule}-{change.__name__}"))
        return change

    return add


def put(rule, *path, value=None, delete=False, name=None):
    """Registers a mutation: the resource `path[0]`, then keys, set to `value` or deleted."""

    def change(t):
        node = t.resource(path[0])
        for key in path[1:-1]:
            node = node[key]
        if delete:
            del node[path[-1]]
        else:
            node[path[-1]] = value

    change.__name__ = name or f"{path[0]}-{path[-1]}"
    mutation(rule)(change)


PROPERTIES = "Properties"
EVENT = ("Router", PROPERTIES, "Events", "Inbound", PROPERTIES)

put("the_router_may_keep_its_progress", "RouterProgress", PROPERTIES, "TimeToLiveSpecification", "Enabled", value=False)
put("streams_are_the_demos", "OrdersStream", PROPERTIES, "Name", value="order")
put("streams_are_encrypted", "ClicksStream", PROPERTIES, "StreamEncryption", "EncryptionType", value="NONE")
put("streams_are_encrypted", "ClicksStream", PROPERTIES, "StreamEncryption", "KeyId", value="alias/aws/kinesis")
put("streams_carry_the_lane_count", "InboundStream", PROPERTIES, "Tags", value=[])
put("streams_follow_the_parameters", "DefaultStream", PROPERTIES, "RetentionPeriodHours", value=24)
put("what_holds_data_outlives_the_stack", "LeaseTable", "DeletionPolicy", value="Delete")
put("what_holds_data_outlives_the_stack", "InboundStream", "UpdateReplacePolicy", delete=True)
put("partial_batch_responses_are_on", *EVENT, "FunctionResponseTypes", delete=True)
put("nothing_is_given_up_before_the_retention_ends", *EVENT, "MaximumRetryAttempts", value=4)
put("nothing_is_given_up_before_the_retention_ends", *EVENT, "MaximumRecordAgeInSeconds", value=3600)
put("batches_are_neither_bisected_nor_windowed", *EVENT, "BisectBatchOnFunctionError", value=True)
put("batches_are_neither_bisected_nor_windowed", *EVENT, "TumblingWindowInSeconds", value=60)
put("parallelization_is_the_parameter", *EVENT, "ParallelizationFactor", value={"Ref": "RouterBatchSize"})
put("reading_starts_at_the_oldest_record", *EVENT, "StartingPosition", value="LATEST")
put("what_the_mapping_gives_up_goes_to_s3", *EVENT, "DestinationConfig", "OnFailure", "Type", value="SQS")
put("what_the_mapping_gives_up_goes_to_s3", *EVENT, "MetricsConfig", delete=True)
put("the_router_is_the_bootstrap_of_the_zip", "Router", PROPERTIES, "Runtime", value="provided.al2")
put("the_router_is_the_bootstrap_of_the_zip", "Router", PROPERTIES, "Role", value={"Ref": "GatewayRole"})
put(
    "the_router_is_told_what_it_reads",
    *("Router", PROPERTIES, "Environment", "Variables", "HEADWORKS_ROUTES"),
    delete=True,
)
put("dead_letters_are_safe", "DeadLetterBucket", PROPERTIES, "VersioningConfiguration", value={"Status": "Suspended"})
put(
    "dead_letters_are_safe",
    *("DeadLetterBucket", PROPERTIES, "PublicAccessBlockConfiguration", "RestrictPublicBuckets"),
    value=False,
)
put("dead_letters_are_safe", "DeadLetterBucketPolicy", PROPERTIES, "PolicyDocument", "Statement", value=[])
put("leases_have_the_kcls_layout", "LeaseTable", PROPERTIES, "PointInTimeRecoverySpecification", delete=True)
put("heartbeats_have_a_table_of_their_own", "WorkerTable", PROPERTIES, "TableName", value={"Ref": "Application"})
put("tables_are_encrypted_and_on_demand", "WorkerTable", PROPERTIES, "SSESpecification", "SSEEnabled", value=False)
put("the_key_rotates_and_only_the_account_holds_it", "Key", PROPERTIES, "EnableKeyRotation", value=False)
put("every_alarm_acts", "RouterErrors", PROPERTIES, "AlarmActions", value=[])
put("every_alarm_acts", "ConsumerLag", PROPERTIES, "AlarmActions", delete=True)
put("alarms_reach_somebody", "AlarmTopic", PROPERTIES, "KmsMasterKeyId", value={"Ref": "Key"})
put("the_first_alarms_are_there", "RouterThrottles", PROPERTIES, "MetricName", value="Errors")
put(
    "every_stream_has_a_throttle_alarm",
    *("ClicksWriteThrottles", PROPERTIES, "Dimensions", 0, "Value"),
    value={"Ref": "OrdersStream"},
)
put("alarms_watch_things_that_exist", "DeadLettersWritten", PROPERTIES, "Dimensions", 1, "Value", value="all")
put("alarms_say_what_silence_means", "ConsumerLag", PROPERTIES, "TreatMissingData", value="notBreaching")
put("alarms_and_runbook_name_each_other", "RouterErrors", PROPERTIES, "AlarmDescription", value="Errors.")


@mutation("consumers_may_read_every_outbound_stream")
def a_stream_is_forgotten(t):
    t.consumer["Parameters"]["Stream"]["AllowedValues"].pop()


def statement(t, name, sid):
    properties = t.resource(name)[PROPERTIES]
    document = properties.get("PolicyDocument") or properties["Policies"][0]["PolicyDocument"]
    return next(s for s in document["Statement"] if s.get("Sid") == sid)


@mutation("no_role_may_do_everything")
def a_wildcard_action(t):
    statement(t, "ConsumerPolicy", "Leases")["Action"] = "dynamodb:*"


@mutation("no_role_may_do_everything")
def a_wildcard_resource(t):
    statement(t, "GatewayRole", "WriteInbound")["Resource"] = "*"


@mutation("no_role_may_do_everything")
def a_wildcard_in_a_conditional_statement(t):
    policy = t.resource("RouterRole")[PROPERTIES]["Policies"][0]["PolicyDocument"]
    policy["Statement"][-1]["Fn::If"][1]["Action"] = ["kms:*"]


@mutation("each_writer_writes_its_streams_only")
def the_router_may_write_inbound(t):
    statement(t, "RouterRole", "WriteOutbound")["Resource"].append({"Fn::GetAtt": ["InboundStream", "Arn"]})


@mutation("each_writer_writes_its_streams_only")
def the_router_may_not_write_payments(t):
    statement(t, "RouterRole", "WriteOutbound")["Resource"].remove({"Fn::GetAtt": ["PaymentsStream", "Arn"]})


@mutation("writers_may_read_the_lane_tag")
def a_gateway_that_cannot_read_tags(t):
    statement(t, "GatewayRole", "WriteInbound")["Action"].remove("kinesis:ListTagsForStream")


@mutation("the_router_may_store_dead_letters")
def a_router_that_cannot_list_the_bucket(t):
    statement(t, "RouterRole", "FindDeadLetterBucket")["Action"] = "s3:GetBucketLocation"


@mutation("alarms_reach_somebody")
def nobody_is_asked_for(t):
    t.pipeline["Rules"]["AlarmsReachSomebody"]["Assertions"][0]["Assert"] = True


@mutation("alarms_and_runbook_name_each_other")
def a_section_is_missing(t):
    t.runbook = t.runbook.replace("## router-errors\n", "")


@mutation("alarms_and_runbook_name_each_other")
def a_section_without_an_alarm(t):
    t.runbook += "\n## nothing-at-all\n"


@mutation("imports_are_exported")
def an_export_is_missing(t):
    del t.pipeline["Outputs"]["ClicksStreamArn"]["Export"]


@mutation("outputs_tell_everything")
def an_output_is_missing(t):
    del t.consumer["Outputs"]["LeaseTableName"]


@mutation("no_yaml_aliases")
def an_alias(t):
    t.consumer_text += "\nA: &a {b: 1}\nC: *a\n"


@mutation("parameters_are_explained")
def a_parameter_without_a_group(t):
    t.pipeline["Parameters"]["Stray"] = {"Type": "String", "Description": "stray"}


@pytest.mark.parametrize(("rule", "change"), MUTATIONS)
def test_mutation_is_caught(templates, rule, change):
    broken = templates.copy()
    change(broken)
    with pytest.raises((AssertionError, KeyError)):
        RULES[rule](broken)


def test_every_rule_has_a_mutation():
    assert {case.values[0] for case in MUTATIONS} == set(RULES)
