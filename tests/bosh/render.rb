# Renders a job's templates in the way of BOSH's director: properties of the spec only, absent ones nil, ERB with "-".
# Reads {job, properties, instance} as JSON and prints {files: {path: text}, errors: [sentence], properties}.
require 'erb'
require 'json'
require 'ostruct'
require 'yaml'

asked = JSON.parse($stdin.read)
job = asked.fetch('job')
spec = YAML.safe_load(File.read(File.join(job, 'spec')))

def at(tree, name)
  name.split('.').reduce(tree) { |branch, key| branch.nil? ? nil : branch[key] }
end

def bound(declared, given)
  declared.each_with_object({}) do |(name, about), tree|
    *above, last = name.split('.')
    given_value = above.reduce(given) { |branch, key| branch.is_a?(Hash) ? branch[key] : nil }
    value = given_value.is_a?(Hash) ? given_value[last] : nil
    branch = above.reduce(tree) { |place, key| place[key] ||= {} }
    branch[last] = value.nil? ? (about || {})['default'] : value
  end
end

# What a template sees.
class Context
  attr_reader :name, :index, :spec

  def initialize(instance, properties)
    @name = instance['name']
    @index = instance['index']
    @spec = OpenStruct.new(instance)
    @values = properties
  end

  def p(names, *default)
    found = Array(names).map { |name| at(@values, name) }.compact.first
    return found unless found.nil?
    return default.first unless default.empty?

    raise "Can't find property '#{Array(names).join("', or '")}'"
  end

  def if_p(*names)
    values = names.map { |name| at(@values, name) }
    return Otherwise.new(true) if values.any?(&:nil?)

    yield(*values)
    Otherwise.new(false)
  end

  def binding_of = binding
end

# What `if_p … end.else { … }` ends in.
Otherwise = Struct.new(:wanted) do
  def else = (yield if wanted)
end

properties = bound(spec.fetch('properties'), asked.fetch('properties'))
files = {}
errors = []
sources = { 'monit' => ['monit', 'monit'] }
spec.fetch('templates').each { |from, to| sources[from] = [File.join('templates', from), to] }
sources.each do |source, (path, target)|
  context = Context.new(asked.fetch('instance'), Marshal.load(Marshal.dump(properties)))
  erb = ERB.new(File.read(File.join(job, path)), trim_mode: '-')
  erb.filename = source
  files[target] = erb.result(context.binding_of)
rescue StandardError => e
  line = e.backtrace.grep(/\A#{Regexp.escape(source)}:/).first.to_s.split(':')[1]
  errors << "Error filling in template '#{source}' (line #{line}: #{e.message})"
end
puts JSON.generate('files' => files, 'errors' => errors, 'properties' => properties)
