-- Health of a ModelDeployment for Argo CD: resource.customizations.health.moe-operator.dev_ModelDeployment
local health = {status = "Progressing", message = "waiting for the operator"}
local status = obj.status
if status == nil or status.conditions == nil then
  return health
end
if status.observedGeneration ~= nil and status.observedGeneration ~= obj.metadata.generation then
  health.message = "waiting for the operator to take up the last change"
  return health
end
local conditions = {}
for _, condition in ipairs(status.conditions) do
  conditions[condition.type] = condition
end
local function is(type)
  return conditions[type] ~= nil and conditions[type].status == "True"
end
if is("Stalled") then
  return {status = "Degraded", message = conditions.Stalled.reason .. ": " .. conditions.Stalled.message}
end
if is("Reconciling") then
  return {status = "Progressing", message = conditions.Reconciling.reason .. ": " .. conditions.Reconciling.message}
end
if is("Ready") then
  return {status = "Healthy", message = conditions.Ready.message}
end
if conditions.Ready ~= nil then
  health.message = conditions.Ready.reason .. ": " .. conditions.Ready.message
end
return health
