from vesselsdf.graph_files.swc import read_swc as read_swc
from vesselsdf.graph_files.swc import write_swc as write_swc
from vesselsdf.graph_files.vtp import read_vtp as read_vtp
from vesselsdf.graph_files.vtp import write_vtp as write_vtp
from vesselsdf.graph_files.whole import read_graphml as read_graphml
from vesselsdf.graph_files.whole import read_json as read_json
from vesselsdf.graph_files.whole import write_graphml as write_graphml
from vesselsdf.graph_files.whole import write_json as write_json
